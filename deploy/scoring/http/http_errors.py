"""Errors as HTTP answers in OpenAI's format: {"error": {message, type, param, code}}."""

from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from deploy.scoring.engine import (
    Cancelled,
    ContextOverflow,
    EngineClosed,
    EngineError,
    EngineFailed,
    Overloaded,
    SchemaRefused,
)
from phi3flow.chats.chat_template import TemplateRefused

CLIENT_LEFT = 499  # nginx's number, for the log: the client is gone
RETRY_SOON = {"Retry-After": "1"}
# For the OpenAPI document. A route has those that its own code and its checks can raise.
DESCRIBED = {
    400: "the request is not what this route takes; `param` is the path of the field",
    401: "the key is missing or wrong",
    404: "there is no model of this name",
    408: "body or answer took too long",
    413: "the body is too large",
    429: "the endpoint is full: try again after Retry-After",
    500: "the engine has failed",
    503: "the model loads or the endpoint goes down: try again after Retry-After",
}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/score")


class RequestError(Exception):
    """A request that cannot be served; `field` is the path of the wrong field inside the body."""

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.headers, self.code = status, field, headers, code


def described(*statuses: int) -> dict[int | str, dict[str, object]]:
    """What FastAPI takes as `responses`: these statuses with their reasons and the shape of an error."""
    content = {"application/json": {"schema": ERROR_SCHEMA}}
    return {status: {"description": DESCRIBED[status], "content": content} for status in statuses}


def register(app: FastAPI) -> None:
    """Let `app` answer each known error; any other one is a bug and stays a 500 with a traceback."""
    for known in (RequestError, TemplateRefused, EngineError, TimeoutError, ClientDisconnect, HTTPException):
        app.add_exception_handler(known, _respond)


def _respond(_: Request, error: Exception) -> Response:
    known = _as_request_error(error)
    kind = "invalid_request_error" if known.status < 500 else "server_error"
    body = {"error": {"message": str(known), "type": kind, "param": known.field, "code": known.code}}
    return JSONResponse(body, known.status, headers=dict(known.headers or {}))


def _as_request_error(error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case HTTPException(status_code=404):
            return RequestError(404, f"there is no such route here; there are {', '.join(ROUTES)}")
        case HTTPException():
            return RequestError(error.status_code, error.detail, headers=error.headers)
        case TimeoutError():
            error = TimeoutError("the answer took longer than the endpoint's request timeout")
    status, code, field, headers = next(row for kind, row in _ANSWERS.items() if isinstance(error, kind))
    return RequestError(status, str(error), field, headers, code)


_ANSWERS: dict[type[Exception], tuple[int, str | None, str | None, Mapping[str, str] | None]] = {
    TemplateRefused: (400, None, "messages", None),
    ContextOverflow: (400, "context_length_exceeded", "messages", None),
    SchemaRefused: (400, None, "response_format", None),
    Overloaded: (429, "overloaded", None, RETRY_SOON),
    EngineClosed: (503, "draining", None, RETRY_SOON),
    EngineFailed: (500, "engine_failed", None, None),
    TimeoutError: (408, "timeout", None, None),
    Cancelled: (CLIENT_LEFT, None, None, None),
    ClientDisconnect: (CLIENT_LEFT, None, None, None),
}
