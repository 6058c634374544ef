"""A container's server for a scoring script, in the place of Azure's: `scoring_server.py SCRIPT PORT`.

Calls the script's own init() and run(), as azureml-inference-server-http does, behind a WSGI server with
threads. Of that package it has what a script with `rawhttp` uses; test_azure_score.py asks both the same.
"""

import importlib.util
import sys
import types
import uuid
from collections.abc import Callable, Iterable

from flask import Flask, Request, Response, g, request
from werkzeug.serving import WSGIRequestHandler, make_server

PACKAGE = "azureml_inference_server_http.api"


class AMLResponse(Response):
    """As the package's: a comma separates a header's values; one more header says that run() succeeded."""

    def __init__(
        self, message: Iterable[bytes] | bytes, status_code: int, response_headers: dict[str, str]
    ) -> None:
        super().__init__(message, status_code)
        self.headers["x-ms-run-function-failed"] = "False"
        if "Content-Type" in response_headers:
            self.headers.remove("Content-Type")  # Flask's own
        for name, values in response_headers.items():
            for value in values.split(","):
                self.headers.add(name, value.strip())


def rawhttp(run: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Mark `run` as one that takes the request. The package hands any other the body's JSON."""
    vars(run)["takes_request"] = True
    return run


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # streams are chunked, so a cut one shows

    def log_request(self, *_: object) -> None:
        """Nothing: answers are users' text."""


def provide_package() -> None:
    """The two modules that a scoring script imports."""
    for name, members in {
        "aml_request": {"AMLRequest": Request, "rawhttp": rawhttp},
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
    assert vars(entry.run).get("takes_request"), f"{script}: run() needs the package's @rawhttp"
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
