"""Serving in the foreground: load, answer, drain."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from deploy.scoring.engine import Engine
from deploy.scoring.http.app import create_app
from deploy.scoring.http.auth import KeyFile
from deploy.scoring.http.connection import BoundedConnection
from deploy.scoring.http.service import Service
from deploy.scoring.load import load
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.errors import Phi3flowError

DRAIN_SECONDS = 10.0
CUT_SECONDS = 1.0  # between closing the engine and cutting the connections that are still open


class Server(uvicorn.Server):
    """Uvicorn that already answers while the model loads.

    After a signal it finishes running answers for DRAIN_SECONDS and then closes the engine.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.error: Phi3flowError | None = None  # why the model was not loaded
        self._service = service

    def load_model(
        self, folder: Path, engine: str, cache_bytes: int | None, announce: Callable[[Engine], None]
    ) -> None:
        """Runs in a thread of its own."""
        try:
            loaded = load(folder, self._fail, engine, cache_bytes)
            self._service.ready(loaded)
            if self._service.state == "ready":
                announce(loaded)
        except Phi3flowError as error:
            self.error = error
        finally:
            if self._service.state == "loading":
                self._fail()

    def _fail(self) -> None:
        self._service.fail()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        ending = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._service.close)
        await super().shutdown(sockets)
        ending.cancel()


def server_config(app: FastAPI, connection: type[BoundedConnection] = BoundedConnection) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        access_log=False,
        log_level=logging.WARNING,
        timeout_graceful_shutdown=int(DRAIN_SECONDS + CUT_SECONDS),
    )


def serve(
    folder: Path,
    bound: socket.socket,
    *,
    key: str | KeyFile,
    request_timeout: float,
    announce: Callable[[Engine], None],
    engine: str = "auto",
    cache_bytes: int | None = None,
    origins: Sequence[str] = (),
) -> None:
    """Answer on `bound` until SIGTERM or SIGINT; `announce` is called when the model is loaded.

    `engine` is auto, transformers, openvino or onnx. `request_timeout` is in seconds. `cache_bytes` bounds
    the memory for keys and values. Web pages of `origins` may ask too. Raises BadInput if the folder holds no
    usable model or its memory does not suffice, Phi3flowError if the engine crashes.
    """
    service = Service(folder.resolve().name, recorded_system_prompt(folder))
    server = Server(server_config(create_app(service, key, request_timeout, origins)), service)
    loader = threading.Thread(
        target=server.load_model, args=(folder, engine, cache_bytes, announce), daemon=True
    )
    loader.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again after its shutdown
    server.run(sockets=[bound])
    loader.join(DRAIN_SECONDS)
    service.close()
    if server.error:
        raise server.error
    if service.state == "failed":
        raise Phi3flowError("the engine failed", hint="its traceback is above; start the endpoint again")
