"""The HTTP endpoint: routes, the bearer key, the deadline and the request id around one model."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.scoring.engine import EngineError, Generation, GenerationRequest, Overloaded
from deploy.scoring.http import http_errors, replies
from deploy.scoring.http.auth import KeyFile, is_authorized
from deploy.scoring.http.dialects import BodyA, BodyB, ChatBody, Turn, parse_chat, parse_score
from deploy.scoring.http.http_errors import RequestError
from deploy.scoring.http.json_body import read_json
from deploy.scoring.http.replies import EventStream, cancel_on_disconnect
from deploy.scoring.http.server_metrics import CONTENT_TYPE
from deploy.scoring.http.service import LoadedModel, Service, encode

REQUEST_ID = b"x-request-id"
ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
SCHEMA_REFERENCE = "#/components/schemas/{model}"
log = logging.getLogger("phi3flow.scoring")


def create_app(service: Service, key: str | KeyFile, request_timeout: float) -> FastAPI:
    """Every route but the health checks and the schemas needs a key; `request_timeout` is in seconds."""
    app = FastAPI(title="phi3flow endpoint", docs_url=None, redoc_url=None)
    app.state.service, app.state.key, app.state.request_timeout = service, key, request_timeout
    app.add_middleware(RequestId, on_status=lambda status: service.metrics.responses.labels(status).inc())
    app.include_router(_health)
    app.include_router(_guarded)
    http_errors.register(app)
    _publish_schemas(app, BodyA, BodyB, ChatBody)
    return app


async def _require_key(request: Request) -> None:
    if not is_authorized(request.headers.get("authorization"), request.app.state.key):
        raise RequestError(401, "the key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})


class RequestId:
    """ASGI middleware: one id for a request, in its answer and in the log, so that a report finds its line.

    It takes the client's x-request-id or makes one. It logs no body, no header and no query. `on_status` is
    called with the status of every answer.
    """

    def __init__(self, app: ASGIApp, on_status: Callable[[int], None]) -> None:
        self._app, self._on_status = app, on_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")
        request_id = given if ACCEPTABLE_ID.fullmatch(given) else uuid4().hex
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
                level = logging.ERROR if message["status"] == 500 else logging.INFO
                took = time.monotonic() - began
                self._on_status(message["status"])
                log.log(level, "%s %s %d %.3fs", request_id, scope["path"], message["status"], took)
            await send(message)

        await self._app(scope, receive, send_with_id)


def _body_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is one of `models`.

    FastAPI does not see the bodies, because `read_json` reads them with a limit.
    """
    references = [{"$ref": SCHEMA_REFERENCE.format(model=model.__name__)} for model in models]
    schema = references[0] if len(references) == 1 else {"oneOf": references}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_health = APIRouter()
_guarded = APIRouter(dependencies=[Depends(_require_key)])


@_health.get("/health/live")
async def live() -> Response:
    return JSONResponse({"status": "alive"})


@_health.get("/health/ready")
async def ready(request: Request) -> Response:
    """200 once the model is loaded; 503 while it loads, drains or has failed."""
    state = _service(request).state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


@_guarded.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    return Response(_service(request).metrics.text(), media_type=CONTENT_TYPE)


@_guarded.get("/v1/models")
async def models(request: Request) -> Response:
    service = _service(request)
    return JSONResponse(replies.models(service.model_id, service.created))


@_guarded.post("/score", openapi_extra=_body_schema(BodyA, BodyB))
async def score(request: Request) -> Response:
    """Contracts A and B; B where `input_data` is an object."""
    service = _service(request)
    loaded = service.loaded()
    async with asyncio.timeout_at(_deadline(request)):
        raw = await read_json(request)
        _require_room(loaded)
        body = parse_score(raw)
        if isinstance(body, BodyB):
            asked, parameters = [body.input_data.input_string], body.input_data.parameters
        else:
            asked, parameters = [[Turn(role="user", content=text)] for text in body.input_data], body.params
        prompts = [await encode(loaded.tokenizer, turns) for turns in asked]
        generations = _submit_all(loaded, [parameters.request(prompt) for prompt in prompts])
        with service.metrics.measuring(generations), cancel_on_disconnect(request.receive, generations):
            answers = [await generation.text() for generation in generations]
    return JSONResponse({"output": answers[0]} if isinstance(body, BodyB) else answers)


@_guarded.post("/v1/chat/completions", openapi_extra=_body_schema(ChatBody))
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completion, whole or streamed."""
    service = _service(request)
    loaded, deadline = service.loaded(), _deadline(request)
    async with asyncio.timeout_at(deadline):
        raw = await read_json(request)
        _require_room(loaded)
        chat = parse_chat(raw)
        prompt = await encode(
            loaded.tokenizer, chat.messages, add_generation_prompt=chat.add_generation_prompt
        )
        generation = loaded.engine.submit(chat.request(prompt))
        if chat.stream:
            events = replies.events(chat, generation, service.model_id)
            return EventStream(events, generation, deadline, service.metrics)
        with service.metrics.measuring([generation]), cancel_on_disconnect(request.receive, [generation]):
            return JSONResponse(await replies.completion(chat, generation, service.model_id))


def _publish_schemas(app: FastAPI, *models: type[BaseModel]) -> None:
    """Add the schemas that `_body_schema` refers to."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=SCHEMA_REFERENCE
    )
    app.openapi().setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _deadline(request: Request) -> float:
    """When to give up this request's answer, in the event loop's time."""
    return asyncio.get_running_loop().time() + float(request.app.state.request_timeout)


def _require_room(loaded: LoadedModel) -> None:
    """Called before the work on a request begins: in a flood, a refusal must cost less than an answer."""
    if loaded.engine.full:
        raise Overloaded("slots and queue are full")


def _submit_all(loaded: LoadedModel, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """All or none. Raises EngineError."""
    submitted: list[Generation] = []
    try:
        for request in requests:
            submitted.append(loaded.engine.submit(request))
    except EngineError:
        for generation in submitted:
            generation.cancel()
        raise
    return submitted
