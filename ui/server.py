"""What `streamlit run` starts: the pages of app.py; on loopback, for requests of this machine alone."""

from pathlib import Path

import streamlit as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from phi3flow.core.local_requests import refusal
from phi3flow.core.service_stack import LOOPBACK


class OwnPagesOnly:
    """Answers 403 to another Host or Origin, also where the conversations travel: on the web socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope) if scope["type"] in {"http", "websocket"} else None
        if asked is not None and (problem := refusal(asked.get("host", ""), asked.get("origin"))):
            await PlainTextResponse(problem, 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


on_loopback = st.get_option("server.address") == LOOPBACK
app = st.App(
    Path(__file__).with_name("app.py"), middleware=[Middleware(OwnPagesOnly)] if on_loopback else None
)
