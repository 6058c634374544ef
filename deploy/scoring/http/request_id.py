"""One id for a request in its answer and in the log, so that a user's report finds its line."""

import logging
import re
import time
from collections.abc import Callable
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
ACCEPTABLE = re.compile(r"[\w.:-]{1,128}", re.ASCII)
log = logging.getLogger("phi3flow.scoring")


class RequestId:
    """ASGI middleware: takes the client's x-request-id or makes one; logs no body, no header, no query.

    `on_status` hears of every answer.
    """

    def __init__(self, app: ASGIApp, on_status: Callable[[int], None]) -> None:
        self._app, self._on_status = app, on_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER, b"").decode("latin-1")
        request_id = given if ACCEPTABLE.fullmatch(given) else uuid4().hex
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER, request_id.encode())]
                level = logging.ERROR if message["status"] == 500 else logging.INFO
                took = time.monotonic() - began
                self._on_status(message["status"])
                log.log(level, "%s %s %d %.3fs", request_id, scope["path"], message["status"], took)
            await send(message)

        await self._app(scope, receive, send_with_id)
