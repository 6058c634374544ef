"""What stands before a flow that is served here, whoever serves it: a check of each request, and of its key.

`pf flow serve` has no key, answers every origin, and does not hold itself to the document that it shows.
"""

import json
from collections.abc import Iterable
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from jsonschema import Draft4Validator
from jsonschema.exceptions import best_match
from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from phi3flow.core.jsonl import RowError, without_repeated_keys
from phi3flow.core.local_requests import refusal

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEALTH = "/health"  # says that the server runs, and nothing else: needs no key
SCORE = "/score"
CORS = "access-control-"
NO_KEY = "the flow's key is missing or wrong: send the header that `phi3flow up` shows with its curl line"


class WithKeyOnly:
    """A WSGI app for requests of this machine that bring the key; others get 401 or 403 and a sentence.

    `anywhere` lets requests of other machines in: the ingress of a container asks under its own name. Without
    a key, whoever stands before this has checked one.
    """

    def __init__(self, app: "WSGIApplication", key: str | None, *, anywhere: bool) -> None:
        self._app, self._anywhere = app, anywhere
        self._authorization = None if key is None else f"Bearer {key}".encode()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Whichever origins Prompt flow's server would allow, none is."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [pair for pair in headers if not pair[0].lower().startswith(CORS)]
            return start_response(status, kept, *rest)

        answer = self._refused(Request(environ)) or self._app
        return answer(environ, start)

    def _refused(self, request: Request) -> Response | None:
        problem = refusal(request.headers.get("Host", ""), request.headers.get("Origin"))
        if problem and not self._anywhere:
            return _error(403, problem)
        return None if request.path == HEALTH or self._has_key(request) else _error(401, NO_KEY)

    def _has_key(self, request: Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        return self._authorization is None or compare_digest(given, self._authorization)


class Document:
    """The OpenAPI document of a served flow, which Prompt flow's server shows and does not hold itself to.

    Corrects what it says of inputs with a default: they may be left out, or null.
    """

    def __init__(self, app: Any) -> None:
        schemas = {
            path: each["post"]["requestBody"]["content"]["application/json"]["schema"]
            for path, each in app.swagger["paths"].items()
        }
        self._optional = {name for name, each in app.flow.inputs.items() if each.default is not None}
        asked = schemas[SCORE]
        asked["required"] = [name for name in asked.get("required", []) if name not in self._optional]
        for name in self._optional:
            asked["properties"][name]["nullable"] = True
        # Only now: a validator does not see what changes in its schema later.
        self._bodies = {path: Draft4Validator(schema) for path, schema in schemas.items()}

    def refused(self, request: Request) -> Response | None:
        """A 400 with the field that is wrong. Raises MethodNotAllowed."""
        if request.path not in self._bodies:
            return None
        if request.method != "POST":
            raise MethodNotAllowed(["POST"])
        if not {*request.args.getlist("flatten")} <= {"true", "false"}:
            return _error(400, "flatten: must be true or false")
        try:
            body = json.loads(request.get_data(), object_pairs_hook=without_repeated_keys)
        except RowError as error:
            return _error(400, str(error))
        except RecursionError:
            return _error(400, "the body is nested too deeply")
        except ValueError:
            only_text = request.path == SCORE  # Prompt flow says whether this flow takes text
            return None if only_text else _error(400, "the body must be a JSON object")
        problem = self._problem(self._bodies[request.path], body)
        return _error(400, problem) if problem else None

    def _problem(self, validator: Draft4Validator, body: Any) -> str | None:
        """An optional input that is null counts as left out: JSON Schema has no `nullable`."""
        if isinstance(body, dict):
            body = {name: body[name] for name in body if body[name] is not None or name not in self._optional}
        error = best_match(validator.iter_errors(body))
        return error and ": ".join([*map(str, error.path), error.message])


def in_promptflows_shape(error: HTTPException) -> Response:
    """A wrong path or method, which Prompt flow's server takes for a fault of its own."""
    answer = _error(error.code or 500, str(error))
    answer.headers.extend([pair for pair in error.get_headers() if pair[0] == "Allow"])
    return answer


def _error(status: int, message: str) -> Response:
    """In the shape of Prompt flow's own errors."""
    body = {"error": {"code": "UserError", "message": message}}
    return Response(json.dumps(body), status, mimetype="application/json")


def guard(app: Any, key: str | None, *, anywhere: bool = False) -> None:
    """Put both checks before a Flask app that has `swagger`, its document, and `flow`, with its inputs.

    `anywhere`, and no key: see WithKeyOnly.
    """
    import flask

    document = Document(app)
    app.before_request(lambda: document.refused(flask.request))
    app.register_error_handler(HTTPException, in_promptflows_shape)
    app.wsgi_app = WithKeyOnly(app.wsgi_app, key, anywhere=anywhere)
