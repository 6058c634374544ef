"""An engine that computes on a thread of its own, fed by a bounded queue."""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from deploy.scoring.engine import (
    EngineClosed,
    EngineError,
    EngineFailed,
    Generation,
    GenerationRequest,
    Overloaded,
)

MAX_WAITING = 128


class ThreadedEngine(ABC):
    """At most `max_waiting` requests wait; a subclass takes them, in order, and keeps `_answering` true.

    A subclass calls `_start` last. `on_failure` is called, from the engine's thread, when it dies.
    """

    def __init__(self, *, max_waiting: int, on_failure: Callable[[], None]) -> None:
        self._max_waiting, self._on_failure = max_waiting, on_failure
        self._answering: Sequence[Generation] = ()
        self._end: EngineError | None = None
        self._queue: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)

    @property
    @abstractmethod
    def context(self) -> int: ...

    @abstractmethod
    def _serve(self) -> None:
        """Take and answer requests until `_end` is set."""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._answering)

    @property
    def full(self) -> bool:
        with self._changed:
            if len(self._queue) >= self._max_waiting:
                self._queue = deque(generation for generation in self._queue if not generation.over)
            return len(self._queue) >= self._max_waiting

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request. Raises ContextOverflow, Overloaded, EngineClosed or EngineFailed."""
        generation = Generation(request.fitted(self.context))
        with self._changed:
            if self._end:
                raise self._end
            if self.full:
                raise Overloaded(f"{len(self._queue)} requests are waiting already")
            self._queue.append(generation)
            self._changed.notify()
        return generation

    def close(self) -> None:
        """End after the current step and wait for it."""
        with self._changed:
            self._end = self._end or EngineClosed("the server is going down")
            self._changed.notify()
        self._thread.join()

    def _start(self) -> None:
        self._thread.start()

    def _take(self, fits: Callable[[Sequence[Generation]], bool]) -> list[Generation]:
        """At least one, as many in order as `fits` allows together; none when the engine ends.

        Whoever makes room notifies `_changed`.
        """
        taken: list[Generation] = []
        with self._changed:
            while not taken and not self._end:
                self._changed.wait_for(lambda: self._end or self._first_fits([], fits))
                while not self._end and self._first_fits(taken, fits):
                    taken.append(self._queue.popleft())
        return taken

    def _first_fits(self, taken: list[Generation], fits: Callable[[Sequence[Generation]], bool]) -> bool:
        while self._queue and self._queue[0].over:  # cancelled
            self._queue.popleft()
        return bool(self._queue) and fits([*taken, self._queue[0]])

    def _work(self) -> None:
        """A crash keeps its traceback (the thread's); whoever waits is told either way."""
        try:
            self._serve()
        finally:
            self._die()
            with self._changed:
                for generation in (*self._queue, *self._answering):
                    generation.fail(self._end or EngineFailed())

    def _die(self) -> None:
        """Unless it was closed, or is dead already. For any thread of the engine."""
        with self._changed:
            died = self._end is None
            self._end = self._end or EngineFailed("the engine has failed, see the server's log")
            self._changed.notify_all()
        if died:
            self._on_failure()
