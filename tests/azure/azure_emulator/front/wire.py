"""A request as handlers see it, and what they answer."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from azure_emulator.client import tokens

Document = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """`path` is decoded, with `resourceGroups` in its canonical case; `names` fill the route's template."""

    method: str
    host: str
    path: str
    target: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Document:
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            raise azure_error(400, "InvalidRequestContent", "The request content was invalid JSON.") from None
        if not isinstance(value, dict):
            raise azure_error(400, "InvalidRequestContent", "The request content is not a JSON object.")
        return value

    @property
    def bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def __getitem__(self, name: str) -> str:
        return self.names[name]


@dataclass(frozen=True)
class Reply:
    """`body`: a JSON value, bytes as they are, or an iterator of bytes that is sent chunk by chunk."""

    status: int = 200
    body: Document | list[Any] | str | bytes | Iterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes | Iterator[bytes]:
        if self.body is None:
            return b""
        if isinstance(self.body, dict | list | str):
            return json.dumps(self.body).encode()
        return self.body

    def all_headers(self) -> dict[str, str]:
        headers = {"x-ms-request-id": str(uuid.uuid4()), **self.headers}
        if isinstance(self.body, dict | list | str):
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        return headers


class AzureError(Exception):
    """Raised by a handler to answer with an error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def error_body(code: str, message: str) -> Document:
    return {"error": {"code": code, "message": message}}


def azure_error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> AzureError:
    return AzureError(Reply(status, error_body(code, message), {"x-ms-error-code": code, **(headers or {})}))


def front_error(status: int, code: str, message: str, inner: str = "BadArgument") -> AzureError:
    """As Azure ML's front end words errors about jobs, assets, endpoints and deployments."""
    facts = {
        "ComponentName": "managementfrontend",
        "Correlation": {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]},
        "Environment": "emulator",
        "Location": "emulator",
        "Time": datetime.now(UTC).isoformat(),
        "InnerError": {"code": inner, "innerError": None},
    }
    more = [{"type": name, "info": {"value": value}} for name, value in facts.items()]
    told = {"code": code, "message": message, "details": [], "additionalInfo": more}
    return AzureError(Reply(status, {"error": told}))


def kind_of(resource_id: str) -> str:
    """`Provider/type` of a top-level resource."""
    return "/".join(resource_id.rsplit("/providers/", 1)[-1].split("/")[:2])


def not_found(resource_id: str) -> AzureError:
    """ARM's own 404, with the resource group where there is one."""
    name = f"{kind_of(resource_id)}/{resource_id.rsplit('/', 1)[-1]}"
    group = re.search(r"/resourceGroups/([^/]+)/", resource_id)
    where = f" under resource group '{group[1]}'" if group else ""
    more = "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    return azure_error(404, "ResourceNotFound", f"The Resource '{name}'{where} was not found. {more}")


def require_token(request: Request) -> None:
    """Raise ARM's 401, with the challenge that the SDKs read, unless a token of this tenant is there."""
    if problem := tokens.problem(request.bearer):
        raise azure_error(
            401,
            "AuthenticationFailed",
            f"Authentication failed. {problem}",
            {
                "WWW-Authenticate": (
                    f'Bearer authorization_uri="https://login.microsoftonline.com/{tokens.TENANT}", '
                    'error="invalid_token"'
                )
            },
        )
