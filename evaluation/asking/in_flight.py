"""Many slow calls at a time, in bounded memory."""

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Raised(NamedTuple):
    error: BaseException


def in_flight(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results as they come, in any order; `workers` threads, and no item drawn long before its turn.

    What `work` raises ends the iteration. An interrupted caller does not wait for calls on their way: the
    threads are daemons.
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
    waiting = iter(items)

    def send(count: int) -> int:
        items = list(islice(waiting, count))
        for item in items:
            todo.put(item)
        return len(items)

    try:
        running = send(2 * workers)
        while running:
            result = done.get()
            running += send(1) - 1
            if isinstance(result, _Raised):
                raise result.error
            yield result
    finally:
        for _ in range(workers):
            todo.put(None)
