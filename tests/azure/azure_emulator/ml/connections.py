"""Connections of workspaces and projects. Their secrets are kept apart, and told only to those who ask."""

import uuid

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import now, resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import BY_USER, fill, told
from azure_emulator.front.wire import AzureError, Document, Reply, Request, azure_error

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


def get(cloud: Cloud, request: Request) -> Reply:
    """Connections have a service of their own, with errors of their own."""
    found = cloud.store.get(request.path)
    if found is None:
        raise _missing(request)
    return Reply(200, found)


def _missing(request: Request) -> AzureError:
    nothing = ("severity", "messageFormat", "messageParameters", "referenceCode", "detailsUri", "target")
    inner = {"code": "NotFoundError", "innerError": None}
    message = f"Connection {request['connection']} can't be found in this workspace"
    told = {"code": "UserError", "message": message, **dict.fromkeys(nothing), "details": []}
    told |= {"innerError": inner, "debugInfo": None, "additionalInfo": None}
    about: Document = {"environment": "emulator", "location": "emulator", "time": now()}
    about["correlation"] = {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}
    about |= {"componentName": "account-rp", "statusCode": 404}
    return AzureError(Reply(404, {"error": told, **about}))


SPELLED = {"azureopenai": "AzureOpenAI", "customkeys": "CustomKeys"}
EVERY = {
    "credentials": None,
    "group": "AzureAI",
    "expiryTime": None,
    "useWorkspaceManagedIdentity": False,
    "isSharedToAll": False,
    "sharedUserList": [],
    "peRequirement": "NotRequired",
    "peStatus": "NotApplicable",
    "error": None,
    "isDefault": True,
    "metadata": {},
}
NEWER = ("peRequirement", "peStatus", "error", "isDefault")


def _shape(connection: Document, version: str) -> None:
    told(connection, *BY_USER)
    fill(connection, {"tags": None, "location": None})
    properties = connection["properties"]
    properties["category"] = SPELLED.get(properties["category"].lower(), properties["category"])
    fill(properties, {**EVERY, "createdByWorkspaceArmId": arm.workspace_of(connection["id"])})
    if properties["category"] == "AzureOpenAI":
        fill(properties["metadata"], {"DeploymentApiVersion": "2023-10-01-preview"})
    for name in NEWER if version < "2024" else ():
        del properties[name]


SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", CONNECTIONS, arm.listing(KIND)),
    managed("GET", CONNECTION, get),
    managed("PUT", CONNECTION, put),
    managed("DELETE", CONNECTION, delete),
    managed("POST", f"{CONNECTION}/listSecrets", list_secrets),
]
