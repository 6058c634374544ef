"""Errors as HTTP answers in OpenAI's format: {"error": {message, type, param, code}}."""

from collections.abc import Mapping
from typing import NamedTuple

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
    NotSupported,
    Overloaded,
)

CLIENT_LEFT = 499  # nginx's number, for the log: the client is gone
RETRY_SOON = {"Retry-After": "1"}


class RequestError(Exception):
    """A request that cannot be served; `field` is the path of the wrong field inside the body."""

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.headers = status, field, headers


def register(app: FastAPI) -> None:
    """Let `app` answer each known error; any other one is a bug and stays a 500 with a traceback."""
    for known in (RequestError, EngineError, TimeoutError, ClientDisconnect, HTTPException):
        app.add_exception_handler(known, _respond)


class _Answer(NamedTuple):
    status: int
    code: str | None = None
    field: str | None = None
    headers: Mapping[str, str] | None = None


def _respond(_: Request, error: Exception) -> Response:
    answer = _answer_of(error)
    kind = "invalid_request_error" if answer.status < 500 else "server_error"
    message = str(error) or "the answer took longer than the endpoint's request timeout"
    if isinstance(error, HTTPException):
        message = error.detail
    body = {"error": {"message": message, "type": kind, "param": answer.field, "code": answer.code}}
    return JSONResponse(body, answer.status, headers=dict(answer.headers or {}))


def _answer_of(error: Exception) -> _Answer:
    match error:
        case RequestError():
            return _Answer(error.status, field=error.field, headers=error.headers)
        case NotSupported():
            return _Answer(400, field=error.field)
        case HTTPException():
            return _Answer(error.status_code, headers=error.headers)
    return next(answer for kind, answer in _ANSWERS.items() if isinstance(error, kind))


_ANSWERS: dict[type[Exception], _Answer] = {
    ContextOverflow: _Answer(400, "context_length_exceeded", "messages"),
    Overloaded: _Answer(429, "overloaded", headers=RETRY_SOON),
    EngineClosed: _Answer(503, "draining", headers=RETRY_SOON),
    EngineFailed: _Answer(500, "engine_failed"),
    TimeoutError: _Answer(408, "timeout"),
    Cancelled: _Answer(CLIENT_LEFT),
    ClientDisconnect: _Answer(CLIENT_LEFT),
}
