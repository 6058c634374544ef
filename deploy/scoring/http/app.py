"""The HTTP endpoint: routes, the bearer key, the deadline and the request id around one model."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from deploy.scoring.engine import EngineError, Generation, GenerationRequest, Overloaded
from deploy.scoring.http import http_errors, openai_replies
from deploy.scoring.http.auth import KeyFile, is_authorized
from deploy.scoring.http.dialects import BodyA, BodyB, ChatBody, Turn, parse_chat, parse_score
from deploy.scoring.http.disconnect import EventStream, freeing
from deploy.scoring.http.http_errors import RequestError
from deploy.scoring.http.json_body import read_json
from deploy.scoring.http.metrics import CONTENT_TYPE
from deploy.scoring.http.openapi import body_schema, publish_schemas
from deploy.scoring.http.request_id import RequestId
from deploy.scoring.http.service import LoadedModel, Service, encode


def create_app(service: Service, key: str | KeyFile, request_timeout: float) -> FastAPI:
    """Every route but the health checks asks for a key; `request_timeout` is in seconds."""
    app = FastAPI(title="phi3flow endpoint", docs_url=None, redoc_url=None)
    app.state.service, app.state.key, app.state.request_timeout = service, key, request_timeout
    app.add_middleware(RequestId, on_status=lambda status: service.metrics.responses.labels(status).inc())
    app.include_router(_health)
    app.include_router(_guarded)
    http_errors.register(app)
    publish_schemas(app, BodyA, BodyB, ChatBody)
    return app


async def _require_key(request: Request) -> None:
    if not is_authorized(request.headers.get("authorization"), request.app.state.key):
        raise RequestError(401, "the key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})


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
    return JSONResponse(openai_replies.models(service.model_id, service.created))


@_guarded.post("/score", openapi_extra=body_schema(BodyA, BodyB))
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
        with service.metrics.measuring(generations), freeing(request.receive, generations):
            answers = [await generation.text() for generation in generations]
    return JSONResponse({"output": answers[0]} if isinstance(body, BodyB) else answers)


@_guarded.post("/v1/chat/completions", openapi_extra=body_schema(ChatBody))
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
            events = openai_replies.events(chat, generation, service.model_id)
            return EventStream(events, generation, deadline, service.metrics)
        with service.metrics.measuring([generation]), freeing(request.receive, [generation]):
            return JSONResponse(await openai_replies.completion(chat, generation, service.model_id))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _deadline(request: Request) -> float:
    """The event loop's time at which this request's answer is given up."""
    return asyncio.get_running_loop().time() + float(request.app.state.request_timeout)


def _require_room(loaded: LoadedModel) -> None:
    """Before the work on a request begins: in a flood, refusing must not cost what answering does."""
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
