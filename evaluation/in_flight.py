"""Many slow calls at a time, in bounded memory."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Raised(NamedTuple):
    error: BaseException


def in_flight(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Call `work` on every item in `workers` threads, and yield results as they arrive, in any order.

    At most `2 * workers` items are read ahead. An exception in `work` ends the iteration. The threads are
    daemons: Ctrl-C does not wait for calls in flight.
    """
    todo: SimpleQueue[T | None] = SimpleQueue()
    done: SimpleQueue[R | _Raised] = SimpleQueue()

    def run() -> None:
        while (item := todo.get()) is not None:
            try:
                done.put(work(item))
            except BaseException as error:
                done.put(_Raised(error))

    for _ in range(workers):
        threading.Thread(target=run, daemon=True).start()

    def next_result() -> R:
        result = done.get()
        if isinstance(result, _Raised):
            raise result.error
        return result

    waiting = 0
    try:
        for item in items:
            if waiting == 2 * workers:
                yield next_result()
                waiting -= 1
            todo.put(item)
            waiting += 1
        for _ in range(waiting):
            yield next_result()
    finally:
        for _ in range(workers):
            todo.put(None)
