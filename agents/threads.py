"""Blocking functions without a blocked event loop: flows ask their endpoints with `requests`.

The pool is the process's, not the loop's: a thread keeps its connections to the endpoint from one request to
the next.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import Any, TypeVar

T = TypeVar("T")
MOST_THREADS = 256  # of a process: one for each node that runs
_END = object()
_pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="node")


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` returns or raises. It sees the context variables of the caller."""
    return await asyncio.wrap_future(_submit(call))


def in_this_thread(call: Callable[[], T]) -> T:
    """The same for a loop that has nothing else to do meanwhile. `call` may run a loop of its own."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return call()
    finally:
        asyncio._set_running_loop(loop)


async def pieces_of(source: Iterator[Any]) -> AsyncIterator[Any]:
    """The items of a blocking iterator, which is read as fast as it gives them.

    It is closed at its end, and at its next item when the reader has left before.
    """
    loop, left = asyncio.get_running_loop(), Event()
    pieces: asyncio.Queue[Any] = asyncio.Queue()

    def read() -> None:
        for piece in source:
            if left.is_set():
                return
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    reading = _submit(read)
    reading.add_done_callback(lambda _: _close(source))
    ended = asyncio.wrap_future(reading)
    ended.add_done_callback(lambda _: pieces.put_nowait(_END))
    try:
        while (piece := await pieces.get()) is not _END:
            yield piece
        await ended
    finally:
        left.set()


def _submit(call: Callable[[], T]) -> "Future[T]":
    return _pool.submit(copy_context().run, call)


def _close(source: Iterator[Any]) -> None:
    close = getattr(source, "close", None)
    if close:
        close()
