"""Connections of workspaces and projects. Their secrets are kept apart, and told only to those who ask."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error

KIND = f"{ML}/workspaces/connections"
CONNECTIONS = f"{WORKSPACE}/connections"
CONNECTION = f"{CONNECTIONS}/{{connection}}"
SECRETS = "connection-secrets"


def put(cloud: Cloud, request: Request) -> Reply:
    cloud.store.require(arm.workspace_id(request))
    body, old = request.json, cloud.store.get(request.path)
    sent = body.get("properties") or {}
    if not sent.get("category") or not sent.get("authType"):
        raise azure_error(400, "ValidationError", "A connection needs properties.category and .authType.")
    _remember(cloud, request.path, sent.pop("credentials", None))
    connection = resource_document(request.path, KIND, body, old, credentials=None)
    cloud.store.put(connection)
    return Reply(200, connection)


def _remember(cloud: Cloud, resource_id: str, credentials: Document | None) -> None:
    if credentials is not None:
        cloud.store.write(SECRETS, resource_id.lower(), credentials)


def delete(cloud: Cloud, request: Request) -> Reply:
    there = cloud.store.get(request.path)
    cloud.store.delete(request.path)
    cloud.store.remove(SECRETS, request.path.lower())
    return Reply(200 if there else 204)


def list_secrets(cloud: Cloud, request: Request) -> Reply:
    connection = cloud.store.require(request.path.rsplit("/", 1)[0])
    credentials = cloud.store.read(SECRETS, connection["id"].lower())
    return Reply(200, {**connection, "properties": {**connection["properties"], "credentials": credentials}})


ROUTES = [
    managed("GET", CONNECTIONS, arm.listing(KIND)),
    managed("GET", CONNECTION, arm.get),
    managed("PUT", CONNECTION, put),
    managed("DELETE", CONNECTION, delete),
    managed("POST", f"{CONNECTION}/listSecrets", list_secrets),
]
