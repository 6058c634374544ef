"""Running answers. Each has a thread in the server, so that no click and no reload interrupts it.

Pages only watch. Any tab that shows the conversation finds its answer here while it runs, and in the database
after that.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from phi3flow.phi3_contract import EndpointError, FlowFailed, Overloaded
from ui.conversations import COMPLETE, CUT, FAILED, STOPPED, Conversations

Stream = Callable[[], Iterator[str]]
Explain = Callable[[EndpointError], str]
SAVE_SECONDS = 1.0
RETRY_SECONDS = (2.0, 5.0, 10.0)  # pauses before asking an overloaded endpoint again
MAX_CHARACTERS = 400_000  # an endless answer ends here


class Progress(NamedTuple):
    """The state of an answer. `retry_in` is the seconds until the next try at an overloaded endpoint."""

    text: str
    running: bool
    seconds: float
    retry_in: float | None


class RunningAnswer:
    """One answer. `already` is text of an earlier try, shown until the new one is longer."""

    def __init__(
        self, turn: str, stream: Stream, explain: Explain, store: Conversations, already: str = ""
    ) -> None:
        self.turn, self._stream, self._explain, self._store = turn, stream, explain, store
        self._already, self._pieces = already, list[str]()
        self._first: float | None = None
        self._started, self._seconds, self._retry_at = time.monotonic(), 0.0, 0.0
        self._lock, self._over = threading.Lock(), threading.Event()

    def progress(self) -> Progress:
        running = not self._over.is_set()
        seconds = time.monotonic() - self._started if running else self._seconds
        wait = self._retry_at - time.monotonic()
        return Progress(self._text(), running, seconds, wait if running and wait > 0 else None)

    def stop(self) -> None:
        """End it now for everyone who watches; the connection closes at the next token."""
        self._finish(STOPPED, "Stopped.")

    def abandon(self) -> None:
        """Its thread has ended, perhaps without a result: nobody waits for more."""
        with self._lock:
            self._over.set()

    def run(self) -> None:
        """Ask, and ask again while the endpoint is overloaded and has sent nothing. Runs in the thread."""
        for seconds in (*RETRY_SECONDS, None):
            try:
                self._read()
                self._finish(COMPLETE)
            except EndpointError as error:
                if seconds is None or self._pieces or not _overloaded(error):
                    self._finish(CUT if self._text() else FAILED, self._explain(error))
            if self._over.is_set():
                return
            self._retry_at = time.monotonic() + (seconds or 0.0)
            self._over.wait(seconds)

    def _read(self) -> None:
        saved = time.monotonic()
        for piece in self._stream():
            with self._lock:
                if self._over.is_set():
                    return
                if self._first is None:
                    self._first = time.monotonic() - self._started
                # A lone surrogate is valid in JSON but cannot be written as UTF-8.
                self._pieces.append(piece.encode("utf-8", "replace").decode("utf-8"))
            if time.monotonic() - saved > SAVE_SECONDS:
                if len(self._text()) > MAX_CHARACTERS:
                    self._finish(CUT, f"The page stops reading after {MAX_CHARACTERS} characters.")
                    return
                self._store.save(self.turn, answer=self._text())
                saved = time.monotonic()

    def _text(self) -> str:
        text = "".join(self._pieces)
        return self._already if self._already.startswith(text) else text

    def _finish(self, status: str, error: str = "") -> None:
        """End it once. Saves first: a page that no longer finds the answer here finds it in the database."""
        with self._lock:
            if self._over.is_set():
                return
            self._seconds = time.monotonic() - self._started
            if status == COMPLETE:
                self._already = ""
            self._store.save(
                self.turn,
                answer=self._text(),
                status=status,
                error=error,
                first_token_seconds=self._first,
                seconds=self._seconds,
            )
            self._over.set()


class Streams:
    """The running answers of this server, by turn id."""

    def __init__(self) -> None:
        self._running: dict[str, RunningAnswer] = {}

    def start(self, answer: RunningAnswer) -> None:
        self._running[answer.turn] = answer
        threading.Thread(target=self._run, args=(answer,), name=f"answer {answer.turn}", daemon=True).start()

    def get(self, turn: str) -> RunningAnswer | None:
        return self._running.get(turn)

    def stop(self, turn: str) -> None:
        if answer := self._running.get(turn):
            answer.stop()

    def _run(self, answer: RunningAnswer) -> None:
        try:
            answer.run()
        finally:
            answer.abandon()
            self._running.pop(answer.turn, None)


def _overloaded(error: EndpointError) -> bool:
    return isinstance(error.cause if isinstance(error, FlowFailed) else error, Overloaded)
