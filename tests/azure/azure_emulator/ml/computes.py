"""Compute clusters. Nodes come with a job and go when it ends; an idle cluster has none."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import COMPUTE as COMPUTE_SERVICE
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import now, require_settled, resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.endpoints.probes import seconds
from azure_emulator.front.answers import fill
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.ml import quota

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
    moment = now()
    properties = {
        "createdOn": (old or {}).get("properties", {}).get("createdOn") or moment,
        "modifiedOn": moment,
        "isAttachedCompute": False,
        "properties": sent,
    }
    body = {**body, "location": body.get("location") or workspace["location"]}
    properties["provisioningState"] = "Creating"  # also for a change
    cloud.store.put(resource_document(request.path, KIND, body, old, **properties))
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=True, service=COMPUTE_SERVICE)


def _check_size(sent: Document, old: Document | None) -> None:
    size = sent.get("vmSize")
    if quota.size_of(size) is None:
        raise azure_error(400, "BadRequest", f"The specified VM size {size} is not available in this region.")
    if old and old["properties"]["properties"].get("vmSize", "").upper() != size.upper():
        raise azure_error(400, "BadRequest", "The VM size of an existing cluster cannot be changed.")


def patch(cloud: Cloud, request: Request) -> Reply:
    old = cloud.store.require(request.path)
    require_settled(old)
    with cloud.store.changing(request.path) as properties:
        properties["properties"] |= (request.json.get("properties") or {}).get("properties") or {}
        properties["provisioningState"] = "Updating"
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=False, service=COMPUTE_SERVICE)


NOTHING = ("description", "resourceId", "provisioningErrors", "provisioningWarnings")
NODES = ("preparing", "running", "idle", "unusable", "leaving", "preempted")
UNKNOWN = ("currentNodeCount", "targetNodeCount", "nodeStateCounts", "allocationState")
INNER = {
    **dict.fromkeys((*UNKNOWN, "subnet", "errors", "virtualMachineImage")),
    "vmPriority": "Dedicated",
    "osType": "Linux",
    "remoteLoginPortPublicAccess": "NotSpecified",
    "isolatedNetwork": False,
    "enableNodePublicIp": True,
    "enableBatchPrivateLink": False,
}


def _shape(compute: Document, _: str) -> None:
    """Nodes are not told of while a cluster is made or changed, nor a password ever."""
    compute.pop("systemData", None)
    properties = compute["properties"]
    inner = properties["properties"]
    inner["vmSize"] = inner["vmSize"].upper()
    scale = inner.get("scaleSettings") or {}
    if idle := scale.get("nodeIdleTimeBeforeScaleDown"):
        scale["nodeIdleTimeBeforeScaleDown"] = normal(idle)
    account = inner.pop("userAccountCredentials", None)
    if properties["provisioningState"] == "Creating":
        fill(compute, {"tags": None})
        for name in UNKNOWN:
            inner[name] = None
        if properties["createdOn"] != properties["modifiedOn"]:
            properties["computeLocation"] = compute["location"]
    else:
        fill(compute, {"tags": {}})
        if account:
            inner["userAccountCredentials"] = {**account, "adminUserPassword": None}
        steady = {"nodeStateCounts": {f"{name}NodeCount": 0 for name in NODES}, "allocationState": "Steady"}
        changed = {"allocationStateTransitionTime": properties["modifiedOn"], "propertyBag": {}}
        fill(inner, {**steady, **changed})
        fill(properties, {"computeLocation": compute["location"], "provisioningWarnings": {}})
    fill(properties, {**dict.fromkeys(NOTHING), "disableLocalAuth": False})
    fill(inner, INNER)


def normal(duration: str) -> str:
    """An ISO 8601 duration as Azure writes it: PT120S comes back as PT2M."""
    total = round(seconds(duration, 0))
    parts = ((total // 3600, "H"), (total // 60 % 60, "M"), (total % 60, "S"))
    return "PT" + ("".join(f"{number}{unit}" for number, unit in parts if number) or "0S")


SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", COMPUTES, arm.listing(KIND)),
    managed("GET", COMPUTE, get),
    managed("PUT", COMPUTE, put),
    managed("PATCH", COMPUTE, patch),
    managed("DELETE", COMPUTE, arm.deletion(COMPUTE_SERVICE)),
]
