"""An engine behind our HTTP endpoint on a free port of this machine, for as long as a block runs."""

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from deploy.scoring.engine import Engine
from deploy.scoring.http.app import create_app
from deploy.scoring.http.service import Service
from deploy.scoring.server import server_config
from phi3flow.phi3_contract import Endpoint

SECONDS = 600.0  # for one answer: a long prompt takes minutes on a CPU


@contextmanager
def on_loopback(engine: Engine, name: str) -> Iterator[Endpoint]:
    """The endpoint; closes the engine when the block ends."""
    service, key = Service(name), secrets.token_urlsafe()
    service.ready(engine)
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(server_config(create_app(service, key, SECONDS)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="loopback")
    thread.start()
    try:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1/chat/completions"
        yield Endpoint(url, key, "openai", timeout=SECONDS)
    finally:
        server.should_exit = True
        service.close()
        thread.join()
