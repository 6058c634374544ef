"""Keys and signatures of storage accounts: whether a request may touch a container."""

import base64
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Request

LIFETIME = timedelta(hours=8)
ALL = ContainerSasPermissions(read=True, write=True, list=True, create=True, add=True, delete=True)


def account_key(cloud: Cloud, account: str) -> str:
    """Base64, as storage's keys are."""
    return base64.b64encode(cloud.secret(f"storage/{account}").encode()).decode()


def container_signature(cloud: Cloud, account: str, container: str) -> str:
    """A query string that opens this container for some hours."""
    return generate_container_sas(
        account,
        container,
        account_key=account_key(cloud, account),
        permission=ALL,
        expiry=datetime.now(UTC) + LIFETIME,
    )


def is_allowed(cloud: Cloud, request: Request, account: str, container: str) -> bool:
    """By account key (named, not verified), a token of our tenant, or a signature that we can remake."""
    authorization = request.headers.get("Authorization", "")
    if authorization.startswith("SharedKey "):
        return authorization.startswith(f"SharedKey {account}:")
    if authorization:
        return not tokens.problem(request.bearer)
    return "sig" in request.query and _is_ours(cloud, request, account, container)


def _is_ours(cloud: Cloud, request: Request, account: str, container: str) -> bool:
    expiry = request.query.get("se", "")
    if not expiry or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > expiry:
        return False
    remade = generate_container_sas(
        account,
        container,
        account_key=account_key(cloud, account),
        permission=request.query.get("sp", ""),
        expiry=expiry,
    )
    return parse_qs(remade)["sig"] == [request.query["sig"]]
