"""The HTTP endpoint: routes, the bearer key, the deadline and the request id around one model."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Annotated, Any, NamedTuple
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.scoring.engine import Engine, Generation, GenerationRequest, Overloaded, SchemaRefused
from deploy.scoring.http import http_errors, replies
from deploy.scoring.http.auth import KeyFile, is_authorized
from deploy.scoring.http.bodies import BodyA, BodyB, ChatBody, CompletionBody, OpenAiBody
from deploy.scoring.http.body import Body
from deploy.scoring.http.dialects import parse_chat, parse_completion, parse_score, read_json
from deploy.scoring.http.http_errors import RequestError, described
from deploy.scoring.http.rendering import Rendering
from deploy.scoring.http.replies import EventStream, attended
from deploy.scoring.http.server_metrics import CONTENT_TYPE
from deploy.scoring.http.service import Service
from deploy.scoring.http.turns import Turn
from phi3flow.chats.call_form import CallForm
from phi3flow.core.errors import translating

REQUEST_ID = b"x-request-id"
BEARER = HTTPBearer(auto_error=False)  # for the OpenAPI document; `is_authorized` decides
ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
SCORE, CHAT, COMPLETIONS = "/score", "/v1/chat/completions", "/v1/completions"
BODIES: dict[str, tuple[type[Body], ...]] = {
    SCORE: (BodyA, BodyB),
    CHAT: (ChatBody,),
    COMPLETIONS: (CompletionBody,),
}
STREAMED: dict[int | str, dict[str, object]] = {
    200: {"description": "the answer, or its events with `stream`", "content": {"text/event-stream": {}}}
}
log = logging.getLogger("phi3flow.scoring")


def create_app(
    service: Service, key: str | KeyFile, request_timeout: float, origins: Sequence[str] = ()
) -> FastAPI:
    """Every route but the health checks and the schemas needs a key; `request_timeout` is in seconds.

    Web pages of `origins` may ask too, with the key (CORS); a browser asks first whether they may.
    """
    app = FastAPI(title="phi3flow endpoint", docs_url=None, redoc_url=None)
    app.state.service, app.state.key, app.state.request_timeout = service, key, request_timeout
    app.add_middleware(RequestId, on_status=lambda status: service.metrics.responses.labels(status).inc())
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID.decode()],
        )
    app.include_router(_health)
    app.include_router(_guarded)
    http_errors.register(app)
    _publish_schemas(app)
    return app


async def _require_key(request: Request, _: Annotated[object, Depends(BEARER)]) -> None:
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
                path = scope["raw_path"].decode("ascii", "backslashreplace")  # as sent: a line end is %0A
                log.log(level, "%s %s %d %.3fs", request_id, path, message["status"], took)
            await send(message)

        await self._app(scope, receive, send_with_id)


_health = APIRouter()
_guarded = APIRouter(dependencies=[Depends(_require_key)], responses=described(401, 503))
OF_A_BODY = described(400, 408, 413, 429, 500)


@_health.get("/health/live")
async def live() -> Response:
    return JSONResponse({"status": "alive"})


@_health.get("/health/ready", responses={503: {"description": "the model loads, or the endpoint goes down"}})
async def ready(request: Request) -> Response:
    """200 and the context in tokens once the model is loaded; 503 while it loads, drains or has failed."""
    service = _service(request)
    if service.state != "ready":
        return JSONResponse({"status": service.state}, 503)
    return JSONResponse({"status": service.state, "context": service.engine().context})


@_guarded.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    return Response(_service(request).metrics.text(), media_type=CONTENT_TYPE)


@_guarded.get("/v1/models")
async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_service(request).description()]})


@_guarded.get("/v1/models/{name:path}", responses=described(404))
async def model(request: Request, name: str) -> Response:
    service = _service(request)
    if name != service.model_id:
        message = f"there is no model '{name}' here; the one that is served is '{service.model_id}'"
        raise RequestError(404, message, "model", code="model_not_found")
    return JSONResponse(service.description())


@_guarded.post(SCORE, responses=OF_A_BODY)
async def score(request: Request) -> Response:
    """Contracts A and B; B where `input_data` is an object."""
    service = _service(request)
    engine = service.engine()
    async with asyncio.timeout(request.app.state.request_timeout):
        body = parse_score(await _read(request, engine))
        if isinstance(body, BodyB):
            asked, parameters = [body.input_data.input_string], body.input_data.parameters
        else:
            asked, parameters = [[Turn(role="user", content=text)] for text in body.input_data], body.params
        requests = []
        for turns in asked:  # the first one that is too long ends it before the others are read
            prompt = await service.rendering.encode(turns)
            requests.append(parameters.request(prompt).fitted(engine.context))
        generations: list[Generation] = []
        with attended(request.receive, generations, service.metrics):
            for one in requests:
                generations.append(engine.submit(one))
            answers = [await generation.text() for generation in generations]
    return JSONResponse({"output": answers[0]} if isinstance(body, BodyB) else answers)


@_guarded.post(CHAT, responses=OF_A_BODY | STREAMED)
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completion, whole or streamed."""

    async def asked(body: Any, rendering: Rendering) -> Asked:
        has_schemas = isinstance(body, dict) and {"tools", "response_format"} & body.keys()
        chat = await asyncio.to_thread(parse_chat, body) if has_schemas else parse_chat(body)
        form = (await rendering.tool_rendering()).form if chat.told_tools else None
        grammar = await _held_to(chat, form, rendering.tokens, _service(request).engine())
        ids = await rendering.encode(
            chat.messages, chat.told_tools, add_generation_prompt=chat.add_generation_prompt
        )
        reply = replies.CHAT.calling(form) if form else replies.CHAT
        return Asked(chat, replace(chat.request(ids), grammar=grammar), reply, chat.held_by)

    return await _answer(request, asked)


@_guarded.post(COMPLETIONS, responses=OF_A_BODY | STREAMED)
async def completions(request: Request) -> Response:
    """OpenAI's older completion, whole or streamed; the prompt is asked as one user turn."""

    async def asked(body: Any, rendering: Rendering) -> Asked:
        completion = parse_completion(body)
        ids = await rendering.encode([Turn(role="user", content=completion.prompt)])
        return Asked(completion, completion.request(ids), replies.TEXT)

    return await _answer(request, asked)


async def _held_to(
    chat: ChatBody, form: CallForm | None, tokens: Mapping[str, int], engine: Engine
) -> str | None:
    """The grammar of the answer, which the engine can enforce. Raises RequestError."""
    if chat.told_tools and form is None:
        what = "tools: the model's chat template writes no calls that could be read"
        raise RequestError(400, what, "tools")
    if grammar := chat.grammar(form, tokens):
        with _refusing(chat.held_by):
            await asyncio.to_thread(engine.require_grammar, grammar)
    return grammar


def _refusing(field: str) -> AbstractContextManager[None]:
    """A schema that cannot be enforced is an error of this field."""
    return translating({SchemaRefused: lambda error: RequestError(400, f"{field}: {error}", field)})


class Asked(NamedTuple):
    """A body, what it asks of the engine, the shape of the reply, and the field with the answer's schema."""

    body: OpenAiBody
    request: GenerationRequest
    form: replies.Form
    held_by: str = ""


async def _answer(request: Request, asked: Callable[[Any, Rendering], Awaitable[Asked]]) -> Response:
    """`asked` reads a body."""
    service = _service(request)
    engine = service.engine()
    deadline = asyncio.get_running_loop().time() + float(request.app.state.request_timeout)
    async with asyncio.timeout_at(deadline):
        body, wanted, form, held_by = await asked(await _read(request, engine), service.rendering)
        generation = engine.submit(wanted)
        attending = attended(request.receive, [generation], service.metrics)
        if body.stream:
            events = replies.events(form, body, generation, service.model_id)
            return EventStream(events, deadline, attending)
        with attending, _refusing(held_by):
            return JSONResponse(await replies.whole(form, body, generation, service.model_id))


def _publish_schemas(app: FastAPI) -> None:
    """Describe the bodies, which FastAPI does not see, because `read_json` reads them with a limit."""
    references, schemas = models_json_schema(
        [(model, "validation") for models in BODIES.values() for model in models],
        ref_template="#/components/schemas/{model}",
    )
    document = app.openapi()
    document["components"].setdefault("schemas", {}).update(schemas["$defs"])
    for path, models in BODIES.items():
        options = [references[model, "validation"] for model in models]
        schema = options[0] if len(options) == 1 else {"oneOf": options}
        content = {"application/json": {"schema": schema}}
        document["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _read(request: Request, engine: Engine) -> Any:
    """The body, if the engine has room: in a flood, a refusal must cost less than an answer."""
    body = await read_json(request)
    if engine.full:
        raise Overloaded("slots and queue are full")
    return body
