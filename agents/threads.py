"""Blocking functions without a blocked event loop: flows ask their endpoints with `requests`.

The pool is the process's, not the loop's: a thread keeps its connections to the endpoint from one request to
the next.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")
MOST_THREADS = 256  # of a process: one for each node that runs
_END = object()
_pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="node")


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` returns or raises. It sees the context variables of the caller."""
    return await asyncio.wrap_future(_submit(call))


async def pieces_of(source: Iterator[Any]) -> AsyncIterator[Any]:
    """The items of a blocking iterator; it is closed at the end, and when the reader leaves before it."""
    running: Future[Any] = _submit(lambda: next(source, _END))
    try:
        while (piece := await asyncio.wrap_future(running)) is not _END:
            yield piece
            running = _submit(lambda: next(source, _END))
    finally:
        running.add_done_callback(lambda _: _close(source))


def _submit(call: Callable[[], T]) -> "Future[T]":
    return _pool.submit(copy_context().run, call)


def _close(source: Iterator[Any]) -> None:
    close = getattr(source, "close", None)
    if close:
        close()
