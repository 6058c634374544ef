"""Calling an ASGI application from ordinary threads, without a socket.

For servers that call a function for each request. The application's event loop runs on a thread of its own.
Create `InProcess` after the server has forked: threads do not survive a fork. Why not a2wsgi:
docs/decisions/0004-house.md.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import NamedTuple

from starlette.types import ASGIApp, Message


class CutOff(ConnectionError):
    """The application did not finish its answer; the connection must not end as if it were complete."""


class Reply(NamedTuple):
    """`pieces` blocks until the next one arrives. Closing it tells the application that the client left."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class InProcess:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """From any thread. Raises what the application raises, here or while `pieces` is read."""
        exchange = _Exchange(self._loop, body)
        exchange.running = asyncio.run_coroutine_threadsafe(
            exchange.run(self._app, _scope(method, path, headers)), self._loop
        )
        return exchange.reply()


class _Exchange:
    """One request and its answer, shared by the calling thread and the application's loop.

    The queue of sent messages has no limit: an answer is never longer than the model's context.
    """

    running: "Future[None]"

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        self._loop = loop
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._sent: SimpleQueue[Message | None] = SimpleQueue()

    async def run(self, app: ASGIApp, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._sent.put(None)

    def reply(self) -> Reply:
        start = self._sent.get()
        if start is None:
            self.running.result()
            raise CutOff("the application gave no answer")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], headers, self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        complete = False
        try:
            while (message := self._sent.get()) is not None:
                complete = not message.get("more_body", False)
                if message.get("body"):
                    yield message["body"]
            self.running.result()
            if not complete:
                raise CutOff("the application left the answer unfinished")
        finally:
            self._loop.call_soon_threadsafe(self._left.set)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.put(message)


def _scope(method: str, path: str, headers: Mapping[str, str]) -> Message:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": b"",
        "root_path": "",
        "headers": encoded,
    }
