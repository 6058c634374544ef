"""Online deployments: what is asked and answered about them; `containers` runs them."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import DEPLOYMENTS as DEPLOYMENTS_SERVICE
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import require_settled, resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.endpoints.online_endpoints import ENDPOINT
from azure_emulator.front.answers import fill, told
from azure_emulator.front.wire import Document, Reply, Request, front_error
from azure_emulator.ml import quota

KIND = f"{ML}/workspaces/onlineEndpoints/deployments"
DEPLOYMENTS = f"{ENDPOINT}/deployments"
DEPLOYMENT = f"{DEPLOYMENTS}/{{deployment}}"
INIT_CONTAINER = "storageinitializer"


def _endpoint_id(request: Request) -> str:
    return f"{arm.workspace_id(request)}/onlineEndpoints/{request['endpoint']}"


def put(cloud: Cloud, request: Request) -> Reply:
    endpoint = cloud.store.require(_endpoint_id(request))
    old, body = cloud.store.get(request.path), request.json
    require_settled(old)
    _check(cloud, body["properties"])
    properties = {
        "provisioningState": "Updating" if old else "Creating",
        "endpointComputeType": "Managed",
        "scaleSettings": body["properties"].get("scaleSettings") or {"scaleType": "Default"},
    }
    body = {**body, "location": body.get("location") or endpoint["location"]}
    cloud.store.put(resource_document(request.path, KIND, body, old, **properties))
    _begin(cloud, request.path)
    operation = cloud.store.require(request.path)["properties"]["emulatorOperation"]
    arm.note_operation(cloud, request.path, operation, DEPLOYMENTS_SERVICE)
    return arm.begun(cloud, request, operation, created=old is None, service=DEPLOYMENTS_SERVICE)


def _begin(cloud: Cloud, deployment_id: str) -> None:
    """Start the container, unless a fault or the quota decides the outcome."""
    operation = cloud.operations.begin(Ending(deployment_id), timed=False)
    with cloud.store.changing(deployment_id) as properties:
        properties["emulatorOperation"] = operation
    if cloud.operations.is_decided(operation):
        return
    if problem := quota.exceeded(cloud, cloud.store.require(deployment_id)):
        cloud.operations.finish(operation, ("OutOfQuota", problem))
    else:
        cloud.containers.start(deployment_id, operation)


def _check(cloud: Cloud, sent: Document) -> None:
    """Raise 400 for what the service refuses at once."""
    size = sent.get("instanceType")
    if quota.size_of(size) is None:
        raise front_error(400, "BadRequest", f"The instance type {size} is not available in this region.")
    model = sent.get("model")
    if isinstance(model, str) and model.startswith("/") and cloud.store.get(model) is None:
        raise front_error(400, "BadRequest", f"The model {model.split('/models/')[-1]} does not exist.")


def patch(cloud: Cloud, request: Request) -> Reply:
    """Tags and the number of instances; the container goes on."""
    deployment, body = cloud.store.require(request.path), request.json
    require_settled(deployment)
    deployment |= {name: body[name] for name in ("tags", "sku") if name in body}
    deployment["properties"]["provisioningState"] = "Updating"
    cloud.store.put(deployment)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=False, service=DEPLOYMENTS_SERVICE)


def delete(cloud: Cloud, request: Request) -> Reply:
    """Refused while it has traffic."""
    endpoint = cloud.store.get(_endpoint_id(request))
    properties = (endpoint or {}).get("properties", {})
    if any(properties.get(kind, {}).get(request["deployment"]) for kind in ("traffic", "mirrorTraffic")):
        message = f"Deployment {request['deployment']} has traffic: set it to 0 before deleting it."
        raise front_error(400, "BadRequest", message)
    return arm.deletion(DEPLOYMENTS_SERVICE)(cloud, request)


def get_logs(cloud: Cloud, request: Request) -> Reply:
    """The end of the console, after the container's events, as Azure shows them."""
    deployment = cloud.store.require(request.path.rsplit("/", 1)[0])
    wanted = request.json
    state = deployment["properties"]["provisioningState"]
    events = ["SystemSetup: Succeeded", "UserContainerImagePull: Succeeded", "ModelDownload: Succeeded"]
    events.append(f"UserContainerStart: {'InProgress' if state in {'Creating', 'Updating'} else state}")
    lines = ["Instance status:", *events, "", "Container logs:"]
    if str(wanted.get("containerType", "")).lower() != INIT_CONTAINER:
        lines += cloud.containers.log(deployment["id"]).splitlines()[-int(wanted.get("tail") or 100) :]
    return Reply(200, {"content": "\n".join(lines) + "\n"})


def resume(cloud: Cloud) -> None:
    """After a restart of the emulator: everything that served, or was about to, starts again."""
    for deployment in cloud.store.below("", kind=KIND):
        state = deployment["properties"]["provisioningState"]
        operation = deployment["properties"]["emulatorOperation"]
        if state == "Succeeded":
            cloud.containers.start(deployment["id"], None)
        elif state in {"Creating", "Updating"} and not cloud.operations.is_decided(operation):
            cloud.containers.start(deployment["id"], operation)


PROBE = {
    "failureThreshold": 30,
    "successThreshold": 1,
    "timeout": "PT2S",
    "period": "PT10S",
    "initialDelay": "PT10S",
}
REQUESTS = {"maxQueueWait": "PT0S", "requestTimeout": "PT5S", "maxConcurrentRequestsPerInstance": 1}
EVERY = {
    **dict.fromkeys(("description", "codeConfiguration", "environmentId", "model", "modelMountPath")),
    "dataCollector": None,
    "properties": {},
    "environmentVariables": {},
    "requestSettings": REQUESTS,
    "appInsightsEnabled": False,
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "egressPublicNetworkAccess": "Enabled",
}


def _shape(deployment: Document, _: str) -> None:
    told(deployment, "createdAt", "createdBy", "lastModifiedAt")
    properties = deployment["properties"]
    properties["instanceType"] = properties["instanceType"].upper()
    for name in ("livenessProbe", "readinessProbe", "requestSettings"):
        properties[name] = properties.get(name) or {}
    fill(properties, EVERY)
    fill(deployment, {"tags": {}, "kind": "Managed", "sku": {"name": "Default", "tier": "Standard"}})


SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", DEPLOYMENTS, arm.listing(KIND)),
    managed("GET", DEPLOYMENT, arm.get),
    managed("PUT", DEPLOYMENT, put),
    managed("PATCH", DEPLOYMENT, patch),
    managed("DELETE", DEPLOYMENT, delete),
    managed("POST", f"{DEPLOYMENT}/getLogs", get_logs),
]
