"""Compute clusters. Nodes come with a job and go when it ends; an idle cluster has none."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import COMPUTE as COMPUTE_SERVICE
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import now, require_settled, resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.ml.quota import SIZES

KIND = f"{ML}/workspaces/computes"
COMPUTES = f"{WORKSPACE}/computes"
COMPUTE = f"{COMPUTES}/{{compute}}"


def get(cloud: Cloud, request: Request) -> Reply:
    compute = cloud.store.require(request.path)
    inner = compute["properties"]["properties"]
    least = int((inner.get("scaleSettings") or {}).get("minNodeCount") or 0)
    nodes = max(least, cloud.jobs.nodes_in_use(compute["id"]))
    return Reply(200, _with_nodes(compute, nodes))


def _with_nodes(compute: Document, nodes: int) -> Document:
    inner = {**compute["properties"]["properties"], "currentNodeCount": nodes, "targetNodeCount": nodes}
    return {**compute, "properties": {**compute["properties"], "properties": inner}}


def put(cloud: Cloud, request: Request) -> Reply:
    workspace = cloud.store.require(arm.workspace_id(request))
    old, body = cloud.store.get(request.path), request.json
    require_settled(old)
    sent = body["properties"].get("properties") or {}
    _check_size(sent, old)
    properties = {
        "createdOn": (old or {}).get("properties", {}).get("createdOn") or now(),
        "modifiedOn": now(),
        "computeLocation": body["properties"].get("computeLocation") or workspace["location"],
        "isAttachedCompute": False,
        "properties": {**sent, "currentNodeCount": 0, "targetNodeCount": 0, "allocationState": "Steady"},
    }
    state = "Updating" if old else "Creating"
    body = {**body, "location": body.get("location") or workspace["location"]}
    cloud.store.put(resource_document(request.path, KIND, body, old, **properties, provisioningState=state))
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=old is None, service=COMPUTE_SERVICE)


def _check_size(sent: Document, old: Document | None) -> None:
    size = sent.get("vmSize")
    if size not in SIZES:
        raise azure_error(400, "BadRequest", f"The specified VM size {size} is not available in this region.")
    if old and old["properties"]["properties"].get("vmSize") != size:
        raise azure_error(400, "BadRequest", "The VM size of an existing cluster cannot be changed.")


def patch(cloud: Cloud, request: Request) -> Reply:
    old = cloud.store.require(request.path)
    require_settled(old)
    with cloud.store.changing(request.path) as properties:
        properties["properties"] |= (request.json.get("properties") or {}).get("properties") or {}
        properties["provisioningState"] = "Updating"
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=False, service=COMPUTE_SERVICE)


ROUTES = [
    managed("GET", COMPUTES, arm.listing(KIND)),
    managed("GET", COMPUTE, get),
    managed("PUT", COMPUTE, put),
    managed("PATCH", COMPUTE, patch),
    managed("DELETE", COMPUTE, arm.deletion(COMPUTE_SERVICE)),
]
