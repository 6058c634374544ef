"""Unsigned tokens of one tenant, and the check that a request carries one."""

import base64
import binascii
import json
import time
from typing import Any

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "11111111-1111-1111-1111-111111111111"
OBJECT_ID = "22222222-2222-2222-2222-222222222222"
USER = "user@emulator.invalid"
LIFETIME_SECONDS = 3600


def mint(audience: str, lifetime: int = LIFETIME_SECONDS) -> str:
    """`audience`: a resource, or the scope `RESOURCE/.default` that asks for it."""
    claims = {
        "aud": audience.removesuffix("/.default"),
        "tid": TENANT,
        "oid": OBJECT_ID,
        "upn": USER,
        "name": "Emulator user",
        "exp": int(time.time()) + lifetime,
    }
    return f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{_encode(claims)}.unsigned"


def problem(token: str) -> str:
    """Why ARM would refuse `token`; empty when it would not."""
    if not token:
        return "The 'Authorization' header is missing."
    claims = _claims(token)
    if claims.get("tid") != TENANT:
        return "The access token is from the wrong issuer."
    if claims.get("exp", 0) < time.time():
        return "The access token has expired."
    return ""


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
