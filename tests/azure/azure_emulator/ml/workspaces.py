"""Workspaces, hubs and projects, their storage, and the addresses by which the SDK finds their services."""

import uuid

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, SUBSCRIPTION, WORKSPACE, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.resource_groups import require_open_group
from azure_emulator.arm.services import ML, WORKSPACES
from azure_emulator.arm.store import require_settled, resource_document
from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import BY_USER, fill, told
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.signatures import account_key
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.ml import datastores

KIND = f"{ML}/workspaces"
DELETED = "deleted-workspaces"
SHARED = ("storageAccount", "keyVault", "applicationInsights", "containerRegistry")
SERVICES = ("api", "history", "experimentation", "catalog", "hyperdrive", "modelmanagement", "index")


def create(cloud: Cloud, resource_id: str, body: Document) -> Document:
    """The workspace with its four datastores. It is settled when the operation that makes it ends."""
    old = cloud.store.get(resource_id)
    location = body["location"]
    api = f"https://{location}.api.azureml.ms"
    body = _with_the_hubs_parts(cloud, body)
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


def _with_the_hubs_parts(cloud: Cloud, body: Document) -> Document:
    """A project stands on its hub's storage and vault. Raise 404 for a hub that is missing."""
    properties = body.get("properties") or {}
    if not properties.get("hubResourceId"):
        return body
    hub = cloud.store.require(properties["hubResourceId"])["properties"]
    shared = {name: hub[name] for name in SHARED if hub.get(name)}
    return {**body, "properties": {**properties, **shared}}


def _projects(cloud: Cloud, hub_id: str) -> list[Document]:
    found = cloud.store.below("", kind=KIND)
    return [one for one in found if str(one["properties"].get("hubResourceId")).lower() == hub_id.lower()]


def get(cloud: Cloud, request: Request) -> Reply:
    """A hub names its projects."""
    workspace = cloud.store.require(request.path)
    if projects := _projects(cloud, request.path):
        workspace["properties"]["associatedWorkspaces"] = [one["id"] for one in projects]
    return Reply(200, workspace)


def delete(cloud: Cloud, request: Request) -> Reply:
    """A hub goes after its projects."""
    for project in _projects(cloud, request.path):
        raise azure_error(409, "Conflict", f"The hub still has the project {project['name']}.")
    reply = arm.deletion(WORKSPACES)(cloud, request)
    if request.query.get("forceToPurge", "").lower() == "true":
        cloud.store.remove(DELETED, request.path.lower())
    elif reply.status == 202:
        cloud.store.write(DELETED, request.path.lower(), {})
    return reply


def put(cloud: Cloud, request: Request) -> Reply:
    require_open_group(cloud, request)
    old = cloud.store.get(request.path)
    require_settled(old)
    if old is None and cloud.store.read(DELETED, request.path.lower()) is not None:
        message = "A soft-deleted workspace has this name. Recover or purge it: https://aka.ms/wsoftdelete"
        raise azure_error(409, "Conflict", message)
    create(cloud, request.path, request.json)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=old is None, service=WORKSPACES)


def patch(cloud: Cloud, request: Request) -> Reply:
    workspace, body = cloud.store.require(request.path), request.json
    require_settled(workspace)
    workspace |= {name: body[name] for name in ("tags", "sku", "identity") if name in body}
    workspace["properties"] |= {**(body.get("properties") or {}), "provisioningState": "Updating"}
    cloud.store.put(workspace)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.accepted(cloud, operation, WORKSPACES, workspace)


def list_all(cloud: Cloud, request: Request) -> Reply:
    scope = request.path.split("/providers/")[0]
    return Reply(200, {"value": cloud.store.below(scope, kind=KIND)})


def list_keys(cloud: Cloud, request: Request) -> Reply:
    workspace = cloud.store.require(arm.workspace_id(request))
    account = workspace["properties"]["storageAccount"]
    key = account_key(cloud, account.rsplit("/", 1)[1])
    registry = {"location": workspace["location"], "username": None, "passwords": []}  # it has no admin user
    other = {
        "appInsightsInstrumentationKey": None,
        "containerRegistryCredentials": registry,
        "notebookAccessKeys": {"primaryAccessKey": None, "secondaryAccessKey": None},
    }
    return Reply(200, {"userStorageKey": key, "userStorageResourceId": account, **other})


def discovery(cloud: Cloud, request: Request) -> Reply:
    return Reply(
        200, {**dict.fromkeys(SERVICES, f"https://{request.host}"), "studio": "https://ml.azure.com"}
    )


MODES = ["AllowInternetOutbound", "AllowOnlyApprovedOutbound"]
EVERY = {
    **dict.fromkeys(("keyVault", "applicationInsights", "containerRegistry", "storageAccount")),
    **dict.fromkeys(("imageBuildCompute", "linkedModelInventoryArmId", "serverlessComputeSettings")),
    **dict.fromkeys(("hbiWorkspace", "v1LegacyMode", "softDeleteEnabled", "storageHnsEnabled"), False),
    **dict.fromkeys(("EnableSoftwareBillOfMaterials", "enableDataIsolation"), False),
    "enableServiceSideCMKEncryption": False,
    "description": "",
    "sasGetterUri": "",
    "tenantId": tokens.TENANT,
    "managedNetwork": {"changeableIsolationModes": MODES, "isolationMode": "Disabled"},
    "allowRoleAssignmentOnRG": True,
    "privateLinkCount": 0,
    "publicNetworkAccess": "Enabled",
    "ipAllowlist": [],
    "sdkTelemetryAppInsightsKey": tokens.TENANT,
    "systemDatastoresAuthMode": "identity",
}
NEWER = ("allowRoleAssignmentOnRG", "systemDatastoresAuthMode", "enableServiceSideCMKEncryption")
UNUSED = dict.fromkeys(("resourceId", "authType", "endpoint", "failureReason")) | {
    "provisioningState": "NotStarted"
}
OF_FOUNDRY = {
    "enableDataIsolation": True,
    "azureOpenAI": {**UNUSED, "location": None, "proxyResourceId": None, "deployedModels": []},
    "azureCognitiveSearch": UNUSED,
    "azureAIContentSafety": UNUSED,
}


def _shape(workspace: Document, version: str) -> None:
    told(workspace, *BY_USER)
    if (workspace.get("identity") or {}).get("principalId"):
        workspace["identity"]["tenantId"] = tokens.TENANT
    properties = workspace["properties"]
    fqdn = f"ml-{workspace['name']}-{properties['workspaceId']}.{workspace['location']}.notebooks.azure.net"
    notebooks = {"resourceId": properties["workspaceId"].replace("-", ""), "fqdn": fqdn}
    notebooks |= {"isPrivateLinkEnabled": False, "notebookPreparationError": None}
    own = {"creationTime": workspace["systemData"]["createdAt"], "friendlyName": workspace["name"]}
    fill(workspace, {"tags": {}, "etag": None, "sku": {"name": "Basic", "tier": "Basic"}, "kind": "Default"})
    workspace["kind"] = workspace["kind"].capitalize()
    _shape_foundry(workspace)
    fill(properties, {**EVERY, **own, "notebookInfo": notebooks})
    for name in NEWER if version < "2024" else ():
        del properties[name]


def _shape_foundry(workspace: Document) -> None:
    """What a hub and a project have beside what every workspace has."""
    if workspace["kind"] == "Default":
        return
    fill(workspace["properties"], OF_FOUNDRY)
    if workspace["kind"] == "Hub":
        group = workspace["id"].partition("/providers/")[0]
        fill(workspace["properties"], {"workspaceHubConfig": {"defaultWorkspaceResourceGroup": group}})


SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", f"{GROUP}/providers/{KIND}", list_all),
    managed("GET", f"{SUBSCRIPTION}/providers/{KIND}", list_all),
    managed("GET", WORKSPACE, get),
    managed("PUT", WORKSPACE, put),
    managed("PATCH", WORKSPACE, patch),
    managed("DELETE", WORKSPACE, delete),
    managed("POST", f"{WORKSPACE}/listKeys", list_keys),
    Route("GET", Plane.WORKSPACE, "/discovery", discovery),
    Route("GET", Plane.WORKSPACE, "/discovery/workspaces/{workspace}", discovery),
]
