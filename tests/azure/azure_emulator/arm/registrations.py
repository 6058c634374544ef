"""Which resource providers the subscription has registered: a new one has those alone that all have."""

import re

from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Request, azure_error

COLLECTION = "providers"
ALWAYS = ("microsoft.resources", "microsoft.authorization", "microsoft.alertsmanagement")
FOR_ENDPOINTS = ("microsoft.cdn", "microsoft.policyinsights")
USED = (
    "microsoft.machinelearningservices",
    "microsoft.storage",
    "microsoft.keyvault",
    "microsoft.insights",
    "microsoft.operationalinsights",
    "microsoft.containerregistry",
    "microsoft.managedidentity",
    "microsoft.cognitiveservices",
    *FOR_ENDPOINTS,
)


def is_registered(cloud: Cloud, namespace: str) -> bool:
    return namespace.lower() in ALWAYS or cloud.store.read(COLLECTION, namespace.lower()) is not None


def register(cloud: Cloud, *namespaces: str) -> None:
    for namespace in namespaces:
        cloud.store.write(COLLECTION, namespace.lower(), {})


def require_registered(cloud: Cloud, request: Request) -> None:
    """Raise ARM's 409 for the PUT of a resource whose provider is not registered."""
    found = re.search(r"/providers/([^/]+)/", request.path, re.IGNORECASE)
    if request.method == "PUT" and found and not is_registered(cloud, found[1]):
        message = f"The subscription is not registered to use namespace '{found[1]}'. See "
        message += "https://aka.ms/rps-not-found for how to register subscriptions."
        raise azure_error(409, "MissingSubscriptionRegistration", message)
