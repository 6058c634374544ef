"""login.microsoftonline.com: tokens for service principals, federated identities and refreshes."""

import urllib.parse

from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.wire import Reply, Request

HOST = f"https://{Plane.LOGIN.value}"
WRONG_SECRET = "wrong"


def discover_instance(cloud: Cloud, request: Request) -> Reply:
    aliases = [Plane.LOGIN.value, "login.windows.net"]
    network = {"preferred_network": aliases[0], "preferred_cache": aliases[1], "aliases": aliases}
    return Reply(
        200,
        {
            "tenant_discovery_endpoint": f"{HOST}/{tokens.TENANT}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [network],
        },
    )


def openid_configuration(cloud: Cloud, request: Request) -> Reply:
    base = f"{HOST}/{request['tenant']}"
    return Reply(
        200,
        {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "tenant_region_scope": None,
            "cloud_instance_name": "microsoftonline.com",
        },
    )


def token(cloud: Cloud, request: Request) -> Reply:
    """Any secret but `wrong` is right."""
    form = dict(urllib.parse.parse_qsl(request.body.decode()))
    if form.get("client_secret") == WRONG_SECRET:
        problem = "AADSTS7000215: Invalid client secret provided."
        return Reply(401, {"error": "invalid_client", "error_description": problem, "error_codes": [7000215]})
    return Reply(
        200,
        {
            "token_type": "Bearer",
            "expires_in": tokens.LIFETIME_SECONDS,
            "ext_expires_in": tokens.LIFETIME_SECONDS,
            "access_token": tokens.mint(form.get("scope", "")),
        },
    )


ROUTES = [
    Route("GET", Plane.LOGIN, "/common/discovery/instance", discover_instance),
    Route("GET", Plane.LOGIN, "/{tenant}/v2.0/.well-known/openid-configuration", openid_configuration),
    Route("POST", Plane.LOGIN, "/{tenant}/oauth2/v2.0/token", token),
]
