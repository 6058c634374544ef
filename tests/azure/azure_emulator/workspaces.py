"""Azure ML workspaces, their storage, and the addresses by which the SDK finds their services."""

import uuid

from azure_emulator import arm, datastores
from azure_emulator.arm import GROUP, ML, SUBSCRIPTION, WORKSPACE, managed
from azure_emulator.cloud import Cloud
from azure_emulator.operations import Ending
from azure_emulator.resource_groups import require_open_group
from azure_emulator.routing import Plane, Route
from azure_emulator.signatures import account_key
from azure_emulator.store import require_settled, resource_document
from azure_emulator.wire import Document, Reply, Request

KIND = f"{ML}/workspaces"
SERVICES = ("api", "history", "experimentation", "catalog", "hyperdrive", "modelmanagement", "index")


def create(cloud: Cloud, resource_id: str, body: Document) -> Document:
    """The workspace with its four datastores. It is settled when the operation that makes it ends."""
    old = cloud.store.get(resource_id)
    location = body["location"]
    api = f"https://{location}.api.azureml.ms"
    identity = dict(body.get("identity") or {})
    if "SystemAssigned" in identity.get("type", ""):
        own = (old or {}).get("identity", {}).get("principalId") or str(uuid.uuid4())
        identity["principalId"] = own
    made = uuid.uuid5(uuid.NAMESPACE_URL, resource_id.lower())
    workspace = resource_document(
        resource_id,
        KIND,
        {**body, "identity": identity},
        old,
        workspaceId=str(made),
        discoveryUrl=f"{api}/discovery",
        mlFlowTrackingUri=f"azureml://{location}.api.azureml.ms/mlflow/v1.0{resource_id}",
        provisioningState="Updating" if old else "Creating",
    )
    cloud.store.put(workspace)
    datastores.create_default(cloud, workspace)
    return workspace


def put(cloud: Cloud, request: Request) -> Reply:
    require_open_group(cloud, request)
    old = cloud.store.get(request.path)
    require_settled(old)
    create(cloud, request.path, request.json)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=old is None, provider=ML)


def patch(cloud: Cloud, request: Request) -> Reply:
    workspace, body = cloud.store.require(request.path), request.json
    require_settled(workspace)
    workspace |= {name: body[name] for name in ("tags", "sku", "identity") if name in body}
    workspace["properties"] |= {**(body.get("properties") or {}), "provisioningState": "Updating"}
    cloud.store.put(workspace)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=False, provider=ML)


def list_all(cloud: Cloud, request: Request) -> Reply:
    scope = request.path.split("/providers/")[0]
    return Reply(200, {"value": cloud.store.below(scope, kind=KIND)})


def list_keys(cloud: Cloud, request: Request) -> Reply:
    workspace = cloud.store.require(arm.workspace_id(request))
    account = workspace["properties"]["storageAccount"]
    key = account_key(cloud, account.rsplit("/", 1)[1])
    return Reply(200, {"userStorageKey": key, "userStorageResourceId": account})


def discovery(cloud: Cloud, request: Request) -> Reply:
    return Reply(
        200, {**dict.fromkeys(SERVICES, f"https://{request.host}"), "studio": "https://ml.azure.com"}
    )


ROUTES = [
    managed("GET", f"{GROUP}/providers/{KIND}", list_all),
    managed("GET", f"{SUBSCRIPTION}/providers/{KIND}", list_all),
    managed("GET", WORKSPACE, arm.get),
    managed("PUT", WORKSPACE, put),
    managed("PATCH", WORKSPACE, patch),
    managed("DELETE", WORKSPACE, arm.deletion(ML)),
    managed("POST", f"{WORKSPACE}/listKeys", list_keys),
    Route("GET", Plane.WORKSPACE, "/discovery", discovery),
    Route("GET", Plane.WORKSPACE, "/discovery/workspaces/{workspace}", discovery),
]
