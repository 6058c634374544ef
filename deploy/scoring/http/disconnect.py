"""Freeing what a client no longer waits for, and streams that end only if they are complete."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deploy.scoring.engine import EngineError, Generation
from deploy.scoring.http.metrics import Metrics


@contextmanager
def freeing(receive: Receive, generations: Sequence[Generation]) -> Iterator[None]:
    """Cancel the generations when the client disconnects and when the block ends, however it ends.

    The request's body must have been read.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()

    def cancel() -> None:
        for generation in generations:
            generation.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        cancel()


class EventStream(StreamingResponse):
    """Server-sent events of one generation.

    Where it cannot be completed, because of the engine or of `deadline` (the event loop's time), the last
    chunk is never sent: the server cuts the connection, and no client takes the answer for a whole one.
    """

    def __init__(
        self, events: AsyncIterator[bytes], generation: Generation, deadline: float, metrics: Metrics
    ) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")
        self._events, self._generation, self._deadline = events, generation, deadline
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            with self._metrics.measuring([self._generation]), freeing(receive, [self._generation]):
                async with asyncio.timeout_at(self._deadline):
                    async for event in self._events:
                        await send({"type": "http.response.body", "body": event, "more_body": True})
        except (TimeoutError, EngineError):
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
