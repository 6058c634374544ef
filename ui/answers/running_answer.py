"""One running answer: read piece by piece, saved as it grows, stopped or ended once.

A locked database or a full disk costs no text: the answer stays here, and saving is tried again.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from phi3flow.phi3_contract import EndpointError, FlowFailed, Overloaded
from ui.store.conversations import Conversations
from ui.store.records import COMPLETE, CUT, FAILED, STOPPED

Stream = Callable[[], Iterator[str]]
Explain = Callable[[EndpointError], str]
SAVE_SECONDS = 1.0  # between two saves of a growing answer, and before a failed one is tried again
RETRY_SECONDS = (2.0, 5.0, 10.0)  # pauses before asking an overloaded endpoint again
MAX_CHARACTERS = 400_000  # an endless answer ends here


class Progress(NamedTuple):
    """The state of an answer, which runs until its end is saved.

    `retry_in` is the seconds until the next try at an overloaded endpoint; `unsaved` is why the database did
    not take the text, or empty.
    """

    text: str
    running: bool
    seconds: float
    retry_in: float | None
    unsaved: str


class RunningAnswer:
    """One answer. `already` is text of an earlier try, shown until the new one is longer."""

    def __init__(
        self, turn: str, stream: Stream, explain: Explain, store: Conversations, already: str = ""
    ) -> None:
        self.turn, self._stream, self._explain, self._store = turn, stream, explain, store
        self._already, self._pieces = already, list[str]()
        self._first: float | None = None
        self._started, self._seconds, self._retry_at = time.monotonic(), 0.0, 0.0
        self._end: tuple[str, str] | None = None  # status and error, once nothing more is added
        self._unsaved = ""
        self._lock, self._saving, self._over = threading.Lock(), threading.Lock(), threading.Event()

    def progress(self) -> Progress:
        running = not self._over.is_set()
        seconds = self._seconds if self._end else time.monotonic() - self._started
        wait = self._retry_at - time.monotonic()
        retry_in = wait if running and wait > 0 and not self._end else None
        return Progress(self._text(), running, seconds, retry_in, self._unsaved)

    def stop(self) -> None:
        """End it now for everyone who watches; the connection closes at the next token."""
        self._finish(STOPPED, "Stopped.")
        self._save_end()

    def abandon(self) -> None:
        """Its thread has ended, perhaps without a result: nobody waits for more."""
        with self._lock:
            self._over.set()

    def run(self) -> None:
        """Ask, and save how it ended, however often that takes. Runs in the thread."""
        self._ask()
        while not self._save_end():
            self._over.wait(SAVE_SECONDS)

    def _ask(self) -> None:
        """Ask, and ask again while the endpoint is overloaded and has sent nothing."""
        for seconds in (*RETRY_SECONDS, None):
            try:
                self._read()
                self._finish(COMPLETE)
            except EndpointError as error:
                if seconds is None or self._pieces or not _overloaded(error):
                    self._finish(CUT if self._text() else FAILED, self._explain(error))
            if self._end:
                return
            self._retry_at = time.monotonic() + (seconds or 0.0)
            self._over.wait(seconds)

    def _read(self) -> None:
        saved = time.monotonic()
        for piece in self._stream():
            with self._lock:
                if self._end:
                    return
                if self._first is None:
                    self._first = time.monotonic() - self._started
                # A lone surrogate is valid in JSON but cannot be written as UTF-8.
                self._pieces.append(piece.encode("utf-8", "replace").decode("utf-8"))
            if time.monotonic() - saved > SAVE_SECONDS:
                if len(self._text()) > MAX_CHARACTERS:
                    self._finish(CUT, f"The page stops reading after {MAX_CHARACTERS} characters.")
                    return
                self._save(answer=self._text())
                saved = time.monotonic()

    def _text(self) -> str:
        text = "".join(self._pieces)
        return self._already if self._already.startswith(text) else text

    def _finish(self, status: str, error: str = "") -> None:
        """End it once: no text comes after this."""
        with self._lock:
            if self._end is None:
                self._seconds = time.monotonic() - self._started
                if status == COMPLETE:
                    self._already = ""
                self._end = status, error

    def _save_end(self) -> bool:
        """Whether the end is saved. A page that no longer finds the answer here finds it in the database."""
        with self._saving:
            if self._over.is_set() or self._end is None:
                return self._over.is_set()
            ended = dict(zip(("status", "error"), self._end, strict=True))
            times = {"first_token_seconds": self._first, "seconds": self._seconds}
            if saved := self._save(answer=self._text(), **ended, **times):
                self._over.set()
            return saved

    def _save(self, **columns: str | float | None) -> bool:
        """Whether the database took it; otherwise the page says why not, and the text stays here."""
        try:
            self._store.save(self.turn, **columns)
        except sqlite3.Error as error:
            self._unsaved = str(error)
            return False
        self._unsaved = ""
        return True


def _overloaded(error: EndpointError) -> bool:
    return isinstance(error.cause if isinstance(error, FlowFailed) else error, Overloaded)
