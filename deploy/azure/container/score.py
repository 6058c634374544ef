"""The endpoint under Azure ML's own server (azureml-inference-server-http): init() and run().

`phi3flow serve`'s application answers, in this process and without a socket, so contracts, limits, errors and
streams are the same. Two things differ: every contract is asked at /score and recognised by its body; Azure's
front end has checked the caller's key, and only it reaches this port.

The server's one worker holds the model and its threads share it (deployment-cpu.yaml), so concurrent requests
become one batch. It must not be preloaded: engines are threads, which do not survive the fork.
"""

import json
import os
import sys
import threading
from pathlib import Path
from secrets import token_urlsafe
from typing import IO, Any

CODE = str(Path(__file__).parents[3])
sys.path.append(CODE)
os.environ["PYTHONPATH"] = CODE  # the openvino engine's own process finds the code here too

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp  # noqa: E402 - needs CODE
from azureml_inference_server_http.api.aml_response import AMLResponse  # noqa: E402
from flask import g  # noqa: E402

from deploy.azure.container.in_process import InProcess  # noqa: E402
from deploy.scoring.http.app import create_app  # noqa: E402
from deploy.scoring.http.dialects import MAX_BODY_BYTES  # noqa: E402
from deploy.scoring.http.service import Service  # noqa: E402
from deploy.scoring.load import load  # noqa: E402
from phi3flow.core.errors import BadInput  # noqa: E402
from phi3flow.core.settings import azure_model_mount  # noqa: E402

REQUEST_SECONDS = 120.0  # below the front end's request_timeout_ms: a late answer is then a 408 that says why
SECONDS_TO_EXIT = 1.0
CHAT, SCORE = "/v1/chat/completions", "/score"
PASSED_ON = ("retry-after", "cache-control")


class Endpoint:
    """The application and its engine, with a random key in the place of Azure's."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput if `folder` holds no usable model."""
        self._service = Service(folder.name)
        key = token_urlsafe()
        self._service.ready(load(folder, self._restart))
        self._app = InProcess(create_app(self._service, key, REQUEST_SECONDS))
        self._authorization = f"Bearer {key}"
        threading.Thread(target=self._close_at_exit, name="closer").start()

    def answer(self, method: str, body: bytes, request_id: str) -> AMLResponse:
        path = CHAT if _is_chat(body) else SCORE
        headers = {"authorization": self._authorization, "x-request-id": request_id}
        status, found, pieces = self._app.ask(method, path, headers, body)
        kind = found.get("content-type", "application/json")
        streamed = kind.startswith("text/event-stream")
        kept = {name: found[name] for name in PASSED_ON if name in found} | {"Content-Type": kind}
        return AMLResponse(pieces if streamed else b"".join(pieces), status, kept)

    def _restart(self) -> None:
        """The engine crashed: let pending requests fail, then exit, so that gunicorn starts another worker.

        Not by SIGTERM: some versions of gunicorn hold connections for their 30 s of grace.
        """
        self._service.fail()
        threading.Timer(SECONDS_TO_EXIT, os._exit, [1]).start()

    def _close_at_exit(self) -> None:
        """Close the engine when the main thread ends: Python waits for its threads before any atexit call."""
        threading.main_thread().join()
        self._service.close()


_endpoint: Endpoint | None = None


def init() -> None:
    """Load the model that Azure mounted. Any error ends the server and stands in its log."""
    global _endpoint  # noqa: PLW0603 - the server calls two functions and keeps no object between them
    _endpoint = Endpoint(model_folder(azure_model_mount()))


@rawhttp
def run(request: AMLRequest) -> AMLResponse:
    """Contract A, B, or OpenAI's chat completion (a body with `messages`), with stream and without."""
    assert _endpoint is not None, "init() comes first"  # noqa: S101 - the server guarantees it
    return _endpoint.answer(request.method, _read(request.stream), g.request_id)


def model_folder(mount: Path) -> Path:
    """The model folder below Azure's mount, which adds name, version and folder. Raises BadInput."""
    found = sorted(path.parent for path in mount.rglob("config.json"))
    if not found:
        raise BadInput(f"{mount}: no model folder", hint="register the folder that train or export wrote")
    return found[0]


def _read(stream: IO[bytes]) -> bytes:
    """The body, or as much of it as the application needs to refuse it as too large."""
    raw = bytearray()
    while len(raw) <= MAX_BODY_BYTES and (chunk := stream.read(MAX_BODY_BYTES + 1 - len(raw))):
        raw += chunk  # werkzeug takes a read of nothing for a client that left
    return bytes(raw)


def _is_chat(raw: bytes) -> bool:
    """Whether the body has `messages`; the application refuses what is wrong with it."""
    try:
        body: Any = json.loads(raw) if len(raw) <= MAX_BODY_BYTES else None
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and "messages" in body
