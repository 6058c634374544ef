"""Reading a request's body as strict JSON, with limits on its size and time."""

import asyncio
import json
from typing import Any, NoReturn

from fastapi import Request

from deploy.scoring.http.http_errors import RequestError

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 10.0  # no longer than a drain lasts, so that a half-sent body never holds it up


async def read_json(request: Request) -> Any:
    """Raises RequestError: 413 above MAX_BODY_BYTES, 408 after BODY_SECONDS, 400 for invalid JSON."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_not_json)
        if rb"\u" in raw:  # an escape may be half a surrogate pair: valid JSON, but no text
            json.dumps(body, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise RequestError(400, "the body is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON, or nested too deeply") from None
    return body


async def _read(request: Request) -> bytearray:
    declared = request.headers.get("content-length", "0")
    raw = bytearray()
    if int(declared) <= MAX_BODY_BYTES:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_BODY_BYTES:
                break
        else:
            return raw
    raise RequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
