"""How far a long run has come, on stderr every few seconds, however long nothing happens."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from phi3flow.core.console import say
from phi3flow.phi3_contract import Pause

EVERY_SECONDS = 5.0


class Progress:
    """Counts answers, and says count, rate and time left. Use it in a `with` block."""

    def __init__(self, expected: int, done: int, pauses: Sequence[Pause]) -> None:
        self._expected, self._before, self._done, self._failed = expected, done, done, 0
        self._pauses, self._ended, self._started = pauses, threading.Event(), time.monotonic()

    def __enter__(self) -> "Progress":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()

    def count(self, *, failed: bool) -> None:
        self._done += 1
        self._failed += failed

    def line(self) -> str:
        """`1200 of 2000 answers, 3 failed, 78.1 a second, about 10 s left`."""
        rate = (self._done - self._before) / max(time.monotonic() - self._started, 1e-9)
        left = f"about {(self._expected - self._done) / rate:.0f} s left" if rate else "waiting for the first"
        said = f"{self._done} of {self._expected} answers, {self._failed} failed, {rate:.1f} a second, {left}"
        pause = max((pause.seconds_left() for pause in self._pauses), default=0.0)
        return said + (f"; paused for {pause:.0f} s, as the endpoint asks" if pause >= 1 else "")

    def _run(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            say(self.line())
