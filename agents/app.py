"""The routes of `pf flow serve`: the same paths, statuses and bodies over a workflow of Agent Framework."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, after_this_request, g, jsonify, request

from agents.answer import STREAM, Answer, require_json
from agents.failures import Failed, code_and_status
from agents.flow_file import Flow
from agents.nodes import load_nodes
from agents.promptflow_names import Connection
from agents.request_inputs import body_of, inputs_of
from agents.running import Runs
from agents.swagger import swagger_of

STANDS_IN_FOR = "1.18.5"  # the version of Prompt flow whose answers these are
EVERY_METHOD = ["GET", "POST", "PUT", "DELETE", "PATCH"]
# Its page at / cannot be drawn, and never could.
NO_PAGE = "Failed to render jinja template. Please modify your prompt to fix the issue."


def create_app(flow: Flow, connections: Mapping[str, Connection]) -> Flask:
    """A WSGI app for one flow. Raises Failed for a flow that cannot be served."""
    app = Flask(__name__, static_folder=None)
    nodes = [bound for bound in load_nodes(flow, connections) if not bound.node.aggregation]
    runs = Runs(flow.name, nodes)
    app.flow, app.swagger = flow, swagger_of(flow)  # type: ignore[attr-defined]  # for `flow_front.guard`

    @app.post("/score")
    def score() -> Response:
        g.data = body_of(request.get_data(), flow)  # where a node finds the request as it came
        accepted = {kind for kind, _ in request.accept_mimetypes}
        answer = Answer(flow, runs, inputs_of(flow, g.data), streams=STREAM in accepted)
        after_this_request(lambda response: _closing(response, answer))
        if name := answer.streaming_output():
            return Response(answer.events(name), mimetype=STREAM)
        outputs = answer.whole()
        require_json(accepted)
        return jsonify(outputs)

    @app.get("/swagger.json")
    def swagger() -> Response:
        return jsonify(app.swagger)  # type: ignore[attr-defined]

    _add_other_routes(app)
    app.register_error_handler(Exception, _error)
    return app


def _add_other_routes(app: Flask) -> None:
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "Healthy", "version": STANDS_IN_FOR}

    @app.get("/version")
    def version() -> dict[str, str]:
        info = os.environ.get("BUILD_INFO", "")
        return {"status": "Healthy", "build_info": info, "version": STANDS_IN_FOR}

    @app.post("/feedback")
    def feedback() -> dict[str, str]:
        return {"status": "Feedback received."}

    @app.route("/", methods=["GET", "POST"])
    def home() -> Response:
        raise Failed(NO_PAGE)

    @app.route("/<path:path>", methods=EVERY_METHOD)
    def unknown(path: str) -> tuple[str, int]:
        message = (
            f"The requested api {path!r} with {request.method} is not supported by current app, "
            "if you entered the URL manually please check your spelling and try again."
        )
        return message, 404


def _closing(response: Response, answer: Answer) -> Response:
    """The client has its answer before the run is ended."""
    response.call_on_close(answer.close)
    return response


def _error(error: Exception) -> tuple[Response, int]:
    code, status = code_and_status(error)
    body: dict[str, Any] = {"error": {"code": code, "message": str(error)}}
    return jsonify(body), status
