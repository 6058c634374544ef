"""Progress of a long step on stderr: a bar in a terminal, otherwise lines, fewer as the step grows longer."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from phi3flow.core.console import is_quiet, say

EVERY_SECONDS = 5.0
EVERY_SHARE = 0.1  # of the time that has passed, once that is longer


class Progress:
    """Counts items up to `total`, in a `with` block.

    `done` items are from an earlier run and do not count toward the rate. `note` returns a few words on the
    current state, or an empty text.
    """

    def __init__(self, what: str, total: int, done: int = 0, note: Callable[[], str] = lambda: "") -> None:
        self._what, self._total, self._before, self._done, self._failed = what, total, done, done, 0
        self._note, self._ended, self._started = note, threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def count(self, *, failed: bool = False) -> None:
        """Count one more item."""
        self._done += 1
        self._failed += failed

    def reach(self, done: int) -> None:
        """Set the number of items done, including earlier runs'."""
        self._done = done

    def line(self) -> str:
        """`1200 of 2000 answers, 3 failed, 78.1 a second, about 10 s left`."""
        rate = (self._done - self._before) / max(time.monotonic() - self._started, 1e-9)
        left = f"about {(self._total - self._done) / rate:.0f} s left" if rate else "waiting for the first"
        failed = f", {self._failed} failed" if self._failed else ""
        note = self._note()
        counted = f"{self._done} of {self._total} {self._what}{failed}, {rate:.1f} a second, {left}"
        return counted + (f"; {note}" if note else "")

    def _run(self) -> None:
        if sys.stderr.isatty() and not is_quiet():
            self._show_bar()
        while not self._ended.wait(max(EVERY_SECONDS, EVERY_SHARE * (time.monotonic() - self._started))):
            say(self.line())

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self.line(), total=self._total, completed=self._done)
            while not self._ended.wait(0.2):
                bar.update(task, description=self.line(), completed=self._done)
