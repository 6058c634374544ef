"""`pf flow serve` for callers with its key alone: `python -m phi3flow.app.flow_server FOLDER PORT`.

`pf flow serve` itself has no key and answers every origin. This serves Prompt flow's own app, behind a check
of each request's Host, Origin and key. The key comes from PHI3FLOW_FLOW_KEY.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from secrets import compare_digest
from typing import TYPE_CHECKING

from werkzeug import Request, Response

from phi3flow.core.flow_folder import DAG
from phi3flow.core.local_requests import refusal
from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEALTH = "/health"  # says that the server runs, and nothing else: needs no key
NO_KEY = "the flow's key is missing or wrong: send the header that `phi3flow up` shows with its curl line"


class WithKeyOnly:
    """A WSGI app for requests of this machine that bring the key; others get 401 or 403 and a sentence."""

    def __init__(self, app: "WSGIApplication", key: str) -> None:
        self._app, self._authorization = app, f"Bearer {key}".encode()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        answer = self._refused(request) or self._app
        return answer(environ, start_response)

    def _refused(self, request: Request) -> Response | None:
        if problem := refusal(request.headers.get("Host", ""), request.headers.get("Origin")):
            return _error(403, problem)
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        if request.path != HEALTH and not compare_digest(given, self._authorization):
            return _error(401, NO_KEY)
        return None


def _error(status: int, message: str) -> Response:
    """In the shape of Prompt flow's own errors."""
    body = {"error": {"code": "UserError", "message": message}}
    return Response(json.dumps(body), status, mimetype="application/json")


def main() -> None:
    """Serve FOLDER until it is stopped, as `pf flow serve --engine flask` does."""
    folder, port, key = Path(sys.argv[1]).resolve(), int(sys.argv[2]), Settings.load().flow_key
    if not key:
        raise SystemExit("PHI3FLOW_FLOW_KEY is not set")
    from promptflow._sdk._configuration import Configuration
    from promptflow.core._serving.app import create_app

    os.environ["PROMPTFLOW_PROJECT_PATH"] = str(folder)
    os.chdir(folder)
    app = create_app(
        engine="flask",
        flow_file_path=folder / DAG,
        connection_provider=Configuration.get_instance().get_connection_provider(),
        environment_variables={},
    )
    app.wsgi_app = WithKeyOnly(app.wsgi_app, key)
    app.run(LOOPBACK, port)


if __name__ == "__main__":
    main()
