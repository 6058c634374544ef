"""ARM template deployments, as far as azure-ai-ml sends them: a workspace and what belongs to it.

The template itself is not evaluated: its parameters say which resources are new and what they are called.
"""

import uuid
import zlib
from typing import Any

from azure_emulator.arm import generic_resources
from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, managed
from azure_emulator.arm.operations import POLL_MILLISECONDS, Ending
from azure_emulator.arm.resource_groups import require_open_group
from azure_emulator.arm.store import now, resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error, kind_of
from azure_emulator.ml import workspaces

KIND = "Microsoft.Resources/deployments"
TEMPLATE = f"{GROUP}/providers/{KIND}/{{deployment}}"
# What the workspace template makes beside the workspace: prefix of its parameters, ARM type, property.
BESIDE = (
    ("storageAccount", "Microsoft.Storage/storageAccounts", "storageAccount"),
    ("keyVault", "Microsoft.KeyVault/vaults", "keyVault"),
    ("applicationInsights", "Microsoft.Insights/components", "applicationInsights"),
    ("containerRegistry", "Microsoft.ContainerRegistry/registries", "containerRegistry"),
)


def put(cloud: Cloud, request: Request) -> Reply:
    group = require_open_group(cloud, request)
    sent = request.json["properties"]
    old = cloud.store.get(request.path)
    if old and old["properties"]["provisioningState"] == "Accepted":
        message = f"The deployment {request['deployment']} is still running; it cannot be replaced."
        raise azure_error(409, "DeploymentActive", message)
    values = {name: item.get("value") for name, item in (sent.get("parameters") or {}).items()}
    made = _make_workspace(cloud, group["id"], values) if values.get("workspaceName") else []
    kept = {
        "mode": str(sent.get("mode", "Incremental")).capitalize(),
        "timestamp": now(),
        "outputs": {},
        "duration": "PT1S",
        "made": made,
        "templateHash": str(zlib.crc32(request.body)),
        "parameters": _parameters(sent),
        "correlationId": str(uuid.uuid4()),
        "providers": [],
        "dependencies": [],
    }
    deployment = resource_document(request.path, KIND, {}, old, **kept, provisioningState="Accepted")
    cloud.store.put(deployment)
    operation = cloud.operations.begin(Ending(request.path, beside=made[-1:]))
    path = request.path.replace("/resourceGroups/", "/resourcegroups/")  # as the SDK writes it
    status = f"https://{request.host}{path}/operationStatuses/{operation}?api-version=2020-06-01"
    headers = {"Azure-AsyncOperation": status, "x-ms-retry-after-ms": POLL_MILLISECONDS}
    return Reply(201 if old is None else 200, cloud.store.require(request.path), headers)


def _make_workspace(cloud: Cloud, group: str, values: dict[str, Any]) -> list[str]:
    """The ids of what was made. An existing resource that the template names is left alone."""
    tags = {"tags": values.get("tagValues") or {}, "location": values["location"]}
    owned: Document = {}
    made: list[str] = []
    for parameter, kind, owner_property in BESIDE:
        option, name = values.get(f"{parameter}Option", "new"), values.get(f"{parameter}Name")
        parent = group.rsplit("/", 1)[0] + "/" + (values.get(f"{parameter}ResourceGroupName") or "")
        parent = parent if option == "existing" and not parent.endswith("/") else group
        if option == "none" or not name or (parameter == "containerRegistry" and option == "new"):
            continue
        owned[owner_property] = f"{parent}/providers/{kind}/{name}"
        if option == "new":
            generic_resources.create(cloud, owned[owner_property], tags)
            made.append(owned[owner_property])
    body = {
        **tags,
        "kind": values.get("kind") or "Default",
        "identity": values.get("identity") or {"type": "SystemAssigned"},
        "properties": {
            **owned,
            "friendlyName": values.get("friendlyName"),
            "description": values.get("description"),
            "publicNetworkAccess": values.get("publicNetworkAccess"),
            "hubResourceId": values.get("workspace_hub") or None,
            "primaryUserAssignedIdentity": values.get("primaryUserAssignedIdentity") or None,
            "imageBuildCompute": values.get("imageBuildCompute") or None,
        },
    }
    workspace = f"{group}/providers/{workspaces.KIND}/{values['workspaceName']}"
    workspaces.create(cloud, workspace, body)
    return [*made, workspace]


def operations(cloud: Cloud, request: Request) -> Reply:
    """One for each resource that the deployment made, the workspace last; the SDK prints them."""
    deployment = cloud.store.require(arm.at(request, request.path.removesuffix("/operations")).path)
    properties = deployment["properties"]
    made = properties["made"]
    last = "Running" if properties["provisioningState"] == "Accepted" else properties["provisioningState"]
    states = [*["Succeeded"] * (len(made) - 1), last]
    told = [_operation(deployment, one, state) for one, state in zip(made, states[: len(made)], strict=True)]
    return Reply(200, {"value": told})


def _operation(deployment: Document, resource_id: str, state: str) -> Document:
    kind = kind_of(resource_id)
    name = resource_id.rsplit("/", 1)[1]
    properties = {
        "provisioningOperation": "Create",
        "provisioningState": state,
        "timestamp": deployment["properties"]["timestamp"],
        "duration": "PT1S",
        "trackingId": str(uuid.uuid5(uuid.NAMESPACE_URL, resource_id)),
        "statusCode": {"Running": "Accepted", "Succeeded": "OK"}.get(state, "Conflict"),
        "targetResource": {"id": resource_id, "resourceType": kind, "resourceName": name},
    }
    return {"id": f"{deployment['id']}/operations/{name}", "operationId": name, "properties": properties}


def _shape(deployment: Document, _: str) -> None:
    """What was made is told with the outputs, once it is there."""
    deployment.pop("systemData", None)
    properties = deployment["properties"]
    for name in ("made", *(("outputs",) if properties["provisioningState"] == "Accepted" else ())):
        properties.pop(name, None)


def _parameters(sent: Document) -> Document:
    """The values that count: those sent, else the template's defaults, with their types."""
    declared = (sent.get("template") or {}).get("parameters") or {}
    values = sent.get("parameters") or {}
    return {
        name: {
            "type": str(one.get("type", "string")).capitalize(),
            "value": (values.get(name) or {}).get("value", one.get("defaultValue")),
        }
        for name, one in declared.items()
    }


SHAPES = {KIND: _shape}
ROUTES = [
    managed("PUT", TEMPLATE, put),
    managed("GET", TEMPLATE, arm.get),
    managed("HEAD", TEMPLATE, arm.head),
    managed("GET", f"{TEMPLATE}/operations", operations),
    managed("GET", f"{GROUP}/deployments/{{deployment}}/operations", lambda c, r: operations(c, _full(r))),
]


def _full(request: Request) -> Request:
    """The older of two addresses of the same list."""
    return arm.at(request, request.path.replace("/deployments/", f"/providers/{KIND}/", 1))
