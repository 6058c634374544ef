"""A container's server for a scoring script, in the place of Azure's: `scoring_server.py SCRIPT PORT`.

Calls the script's own init() and run(), as azureml-inference-server-http does, behind a WSGI server with
threads. Of that package it has what a script with `rawhttp` uses; `make azureml-server` tests the real one.
"""

import importlib.util
import sys
import types
import uuid
from collections.abc import Iterable

from flask import Flask, Request, Response, g, request
from werkzeug.serving import WSGIRequestHandler, make_server

PACKAGE = "azureml_inference_server_http.api"


class AMLResponse(Response):
    """As the package's: body, status, headers."""

    def __init__(self, message: Iterable[bytes], status_code: int, response_headers: dict[str, str]) -> None:
        super().__init__(message, status_code, response_headers)


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # streams are chunked, so a cut one shows

    def log_request(self, *_: object) -> None:
        """Nothing: answers are users' text."""


def provide_package() -> None:
    """The two modules that a scoring script imports."""
    for name, members in {
        "aml_request": {"AMLRequest": Request, "rawhttp": lambda function: function},
        "aml_response": {"AMLResponse": AMLResponse},
    }.items():
        module = types.ModuleType(f"{PACKAGE}.{name}")
        vars(module).update(members)
        sys.modules[module.__name__] = module
    for name in (PACKAGE.partition(".")[0], PACKAGE):
        sys.modules[name] = types.ModuleType(name)


def main(script: str, port: int) -> None:
    provide_package()
    found = importlib.util.spec_from_file_location("entry_module", script)
    assert found and found.loader, script
    entry = importlib.util.module_from_spec(found)
    found.loader.exec_module(entry)
    entry.init()
    app = Flask("scoring")

    @app.get("/")
    def alive() -> str:
        return "Healthy"

    @app.route("/score", methods=["GET", "POST"])
    def score() -> Response:
        g.request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        answer: Response = entry.run(request)
        answer.headers["x-request-id"] = g.request_id
        return answer

    make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
