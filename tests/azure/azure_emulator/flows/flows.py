"""Prompt flow's service: flows made of folders on a workspace's file share, and the index that lists them."""

import uuid
from pathlib import Path

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.store import Store, now
from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Plane
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.storage.file_shares import share_folder

FLOWS = f"/flow/api{WORKSPACE}/flows"
FLOW = f"{FLOWS}/{{flow}}"
DAG = "flow.dag.yaml"
WORKING_DIRECTORY = "workspaceworkingdirectory"
OWNER = {"userName": "Emulator user", "userObjectId": tokens.OBJECT_ID, "userTenantId": tokens.TENANT}


def key_of(workspace: str, flow: str) -> str:
    return f"{workspace.lower()}/{flow}"


def folder_of(cloud: Cloud, workspace: str, definition: str) -> Path:
    """The flow's folder on the share of the workspace, for the path of its file there."""
    store = cloud.store.require(f"{workspace}/datastores/{WORKING_DIRECTORY}")["properties"]
    return (share_folder(cloud, store["accountName"], store["fileShareName"]) / definition).parent


def create(cloud: Cloud, request: Request) -> Reply:
    workspace, sent = cloud.store.require(arm.workspace_id(request)), request.json
    definition = sent.get("flowDefinitionFilePath") or ""
    folder = folder_of(cloud, workspace["id"], definition)
    if not definition.endswith(f"/{DAG}") or not (folder / DAG).is_file():
        raise azure_error(400, "UserError", f"Flow definition file {definition} is not found.")
    name, marker = str(uuid.uuid4()), workspace["properties"]["workspaceId"]
    flow = {
        "flowId": name,
        "flowName": sent.get("flowName"),
        "flowType": sent.get("flowType") or "Default",
        "description": sent.get("description"),
        "tags": sent.get("tags") or {},
        "createdDate": now(),
        "lastModifiedDate": now(),
        "owner": OWNER,
        "flowDefinitionFilePath": definition,
        "flowResourceId": f"azureml://locations/{workspace['location']}/workspaces/{marker}/flows/{name}",
        "isArchived": False,
        "experimentId": marker,
        "studioPortalEndpoint": f"https://ml.azure.com/prompts/flow/{marker}/{name}/details",
    }
    cloud.store.write("flows", key_of(workspace["id"], name), flow)
    return Reply(200, flow)


def require(store: Store, workspace: str, name: str) -> Document:
    found = store.read("flows", key_of(workspace, name))
    if found is None:
        raise azure_error(404, "FlowNotFound", f"The flow {name} was not found.")
    return found


def get(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, require(cloud.store, arm.workspace_id(request), request["flow"]))


def patch(cloud: Cloud, request: Request) -> Reply:
    """Archive or restore: the service deletes no flow."""
    workspace = arm.workspace_id(request)
    flow = require(cloud.store, workspace, request["flow"])
    flow["isArchived"] = request.json.get("flowPatchOperationType") == "ArchiveFlow"
    cloud.store.write("flows", key_of(workspace, request["flow"]), flow)
    return Reply(200, "Succeeded")


def entities(cloud: Cloud, request: Request) -> Reply:
    """The index: flows that are or are not archived, the newest first."""
    wanted = {item["field"]: item["values"] for item in request.json["filters"]}
    if wanted.get("type") != ["flows"]:
        raise azure_error(400, "UserError", f"Only flows are indexed, not {wanted.get('type')}.")
    workspace = arm.workspace_id(request).lower()
    found = [cloud.store.read("flows", key) for key in cloud.store.keys("flows", f"{workspace}/")]
    archived = wanted["annotations/isArchived"]
    shown = [_entity(flow) for flow in found[::-1] if flow and str(flow["isArchived"]).lower() in archived]
    return Reply(200, {"totalCount": len(shown), "value": shown[: request.json["pageSize"]]})


def _entity(flow: Document) -> Document:
    context = {"createdTime": flow["createdDate"], "createdBy": OWNER}
    properties = {name: flow[name] for name in ("flowId", "flowType", "flowDefinitionFilePath")}
    annotations = {name: flow[name] for name in ("flowName", "isArchived", "tags", "description", "owner")}
    return {
        "entityId": flow["flowResourceId"],
        "type": "flows",
        "properties": {**properties, "creationContext": context},
        "annotations": {**annotations, "createdDate": flow["createdDate"]},
    }


ROUTES = [
    managed("POST", FLOWS, create, Plane.WORKSPACE),
    managed("GET", FLOW, get, Plane.WORKSPACE),
    managed("PATCH", FLOW, patch, Plane.WORKSPACE),
    managed("POST", f"/index/v1.0{WORKSPACE}/entities", entities, Plane.WORKSPACE),
]
