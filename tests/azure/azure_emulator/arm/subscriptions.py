"""The subscription itself: the cloud's metadata and the registered providers."""

from azure_emulator.arm import registrations
from azure_emulator.arm.ids import SUBSCRIPTION, managed
from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.wire import Reply, Request, azure_error


def metadata(cloud: Cloud, request: Request) -> Reply:
    management = f"https://{Plane.MANAGEMENT.value}/"
    login = {"loginEndpoint": f"https://{Plane.LOGIN.value}/", "audiences": [management]}
    return Reply(
        200,
        [
            {
                "name": "AzureCloud",
                "portal": "https://portal.azure.com",
                "resourceManager": management,
                "authentication": login,
                "suffixes": {"storage": "core.windows.net"},
            }
        ],
    )


def _document() -> dict[str, str]:
    return {
        "id": f"/subscriptions/{tokens.SUBSCRIPTION}",
        "subscriptionId": tokens.SUBSCRIPTION,
        "tenantId": tokens.TENANT,
        "displayName": "Emulated subscription",
        "state": "Enabled",
    }


def get_subscription(cloud: Cloud, request: Request) -> Reply:
    if request["subscription"] != tokens.SUBSCRIPTION:
        message = f"The subscription '{request['subscription']}' could not be found."
        raise azure_error(404, "SubscriptionNotFound", message)
    return Reply(200, _document())


def list_subscriptions(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, {"value": [_document()]})


def list_tenants(cloud: Cloud, request: Request) -> Reply:
    tenant = {
        "id": f"/tenants/{tokens.TENANT}",
        "tenantId": tokens.TENANT,
        "countryCode": "US",
        "displayName": "Emulated tenant",
        "domains": ["emulator.invalid"],
        "tenantCategory": "Home",
        "defaultDomain": "emulator.invalid",
        "tenantType": "AAD",
        "tenantBrandingLogoUrl": None,
    }
    return Reply(200, {"value": [tenant]})


def get_provider(cloud: Cloud, request: Request) -> Reply:
    """Of a provider's types one is told, as an example."""
    kind = {
        "resourceType": "operations",
        "locations": [],
        "apiVersions": ["2024-10-01"],
        "capabilities": "None",
    }
    known = registrations.is_registered(cloud, request["namespace"])
    registration = {
        "namespace": request["namespace"],
        "registrationState": "Registered" if known else "NotRegistered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [kind],
    }
    place = request.path.removesuffix("/register")
    return Reply(200, {"id": place, **registration})


def register(cloud: Cloud, request: Request) -> Reply:
    registrations.register(cloud, request["namespace"])
    return get_provider(cloud, request)


def list_providers(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, {"value": []})


ROUTES = [
    Route("GET", Plane.MANAGEMENT, "/metadata/endpoints", metadata),
    managed("GET", "/subscriptions", list_subscriptions),
    managed("GET", "/tenants", list_tenants),
    managed("GET", SUBSCRIPTION, get_subscription),
    managed("GET", f"{SUBSCRIPTION}/providers", list_providers),
    managed("GET", f"{SUBSCRIPTION}/providers/{{namespace}}", get_provider),
    managed("POST", f"{SUBSCRIPTION}/providers/{{namespace}}/register", register),
]
