"""Online endpoints: their traffic, their keys and tokens."""

import time

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.registrations import FOR_ENDPOINTS, is_registered
from azure_emulator.arm.services import ENDPOINTS as ENDPOINTS_SERVICE
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import require_settled, resource_document
from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import fill, told
from azure_emulator.front.wire import Document, Reply, Request, front_error

KIND = f"{ML}/workspaces/onlineEndpoints"
ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
ENDPOINT = f"{ENDPOINTS}/{{endpoint}}"
UNREGISTERED = (
    "SubscriptionNotRegistered",
    "Resource provider [N/A] isn't registered with Subscription [N/A]. Please see troubleshooting guide, "
    "available here: https://aka.ms/register-resource-provider",
)
SLOTS = {"primary": "primaryKey", "secondary": "secondaryKey"}


def put(cloud: Cloud, request: Request) -> Reply:
    workspace = cloud.store.require(arm.workspace_id(request))
    old, body = cloud.store.get(request.path), request.json
    require_settled(old)
    _check_name(cloud, request.path, request["endpoint"], body.get("location") or workspace["location"])
    sent = body["properties"]
    _check_traffic(cloud, request.path, sent.get("traffic") or {}, sent.get("mirrorTraffic") or {})
    location = body.get("location") or workspace["location"]
    host = f"{request['endpoint']}.{location}.inference.ml.azure.com"
    sent.pop("keys", None)
    properties = {
        "provisioningState": "Updating" if old else "Creating",
        "scoringUri": f"https://{host}/score",
        "swaggerUri": f"https://{host}/swagger.json",
        "publicNetworkAccess": sent.get("publicNetworkAccess") or "Enabled",
        "traffic": sent.get("traffic") or {},
        "mirrorTraffic": sent.get("mirrorTraffic") or {},
    }
    body = {**body, "location": location, "identity": _identity(cloud, body.get("identity"))}
    cloud.store.put(resource_document(request.path, KIND, body, old, **properties))
    operation = cloud.operations.begin(Ending(request.path))
    arm.note_operation(cloud, request.path, operation, ENDPOINTS_SERVICE)
    if not all(is_registered(cloud, namespace) for namespace in FOR_ENDPOINTS):
        cloud.operations.finish(operation, UNREGISTERED)
    return arm.begun(cloud, request, operation, created=old is None, service=ENDPOINTS_SERVICE)


def patch(cloud: Cloud, request: Request) -> Reply:
    endpoint, body = cloud.store.require(request.path), request.json
    require_settled(endpoint)
    endpoint |= {name: body[name] for name in ("tags", "identity") if name in body}
    endpoint["properties"]["provisioningState"] = "Updating"
    cloud.store.put(endpoint)
    operation = cloud.operations.begin(Ending(request.path))
    return arm.begun(cloud, request, operation, created=False, service=ENDPOINTS_SERVICE)


def delete(cloud: Cloud, request: Request) -> Reply:
    reply = arm.deletion(ENDPOINTS_SERVICE)(cloud, request)
    cloud.forget_secrets(f"endpoint/{request.path.lower()}/")
    return reply


def _check_name(cloud: Cloud, resource_id: str, name: str, location: str) -> None:
    """An endpoint's name is a host name of its region. Raise 400 where it is unfit or taken."""
    if not 3 <= len(name) <= 32:
        raise front_error(400, "BadRequest", f"Endpoint name {name} must have 3 to 32 characters.")
    for other in cloud.store.below("", kind=KIND):
        same = other["name"].lower() == name.lower() and other["location"] == location
        if same and other["id"].lower() != resource_id.lower():
            message = f"Endpoint name {name} is already in use in this region. Choose another."
            raise front_error(400, "BadRequest", message)


def _check_traffic(cloud: Cloud, resource_id: str, traffic: Document, mirror: Document) -> None:
    """Raise 400 unless traffic goes to deployments that are ready, and adds up to 0 or 100 per cent."""
    for name in [*traffic, *mirror]:
        deployment = cloud.store.get(f"{resource_id}/deployments/{name}")
        if deployment is None:
            raise front_error(
                400, "BadRequest", f"Traffic is given to deployment {name}, which does not exist."
            )
        state = deployment["properties"]["provisioningState"]
        if state != "Succeeded" and (traffic.get(name) or mirror.get(name)):
            message = f"Traffic is given to deployment {name}, which is {state}."
            raise front_error(400, "BadRequest", message)
    if sum(traffic.values()) not in {0, 100}:
        raise front_error(400, "BadRequest", f"Traffic adds up to {sum(traffic.values())}, not to 0 or 100.")
    if sum(mirror.values()) > 50:
        raise front_error(400, "BadRequest", "Mirror traffic is more than 50 per cent.")


def _identity(cloud: Cloud, declared: Document | None) -> Document:
    """With the ids that Azure fills in for each user-assigned identity. Raise 400 for one that is missing."""
    if not declared or not declared.get("userAssignedIdentities"):
        own = {"principalId": tokens.OBJECT_ID, "tenantId": tokens.TENANT}
        return {"type": "SystemAssigned", **(declared or {}), **own}
    filled = {}
    for identity_id in declared["userAssignedIdentities"]:
        found = cloud.store.get(identity_id)
        if found is None:
            raise front_error(400, "BadRequest", f"The identity {identity_id} does not exist.")
        filled[identity_id] = {name: found["properties"][name] for name in ("principalId", "clientId")}
    return {**declared, "userAssignedIdentities": filled}


def keys(cloud: Cloud, endpoint_id: str) -> dict[str, str]:
    return {name: cloud.secret(f"endpoint/{endpoint_id.lower()}/{name}") for name in SLOTS.values()}


def list_keys(cloud: Cloud, request: Request) -> Reply:
    endpoint = cloud.store.require(request.path.rsplit("/", 1)[0])
    if endpoint["properties"].get("authMode", "Key").lower() != "key":
        raise front_error(400, "BadRequest", "Keys are listed for endpoints with key authentication only.")
    return Reply(200, keys(cloud, endpoint["id"]))


def regenerate_keys(cloud: Cloud, request: Request) -> Reply:
    endpoint = cloud.store.require(request.path.rsplit("/", 1)[0])
    slot = SLOTS[str(request.json.get("keyType", "Primary")).lower()]
    cloud.secret(f"endpoint/{endpoint['id'].lower()}/{slot}", renew=True)
    operation = cloud.operations.begin(Ending(endpoint["id"]))
    return arm.accepted(cloud, operation, ENDPOINTS_SERVICE, endpoint)


def token(cloud: Cloud, request: Request) -> Reply:
    cloud.store.require(request.path.rsplit("/", 1)[0])
    lifetime = tokens.LIFETIME_SECONDS
    return Reply(
        200,
        {
            "accessToken": tokens.mint("https://ml.azure.com"),
            "expiryTimeUtc": int(time.time()) + lifetime,
            "refreshAfterTimeUtc": int(time.time()) + lifetime // 2,
            "tokenType": "Bearer",
        },
    )


EVERY = {
    **dict.fromkeys(("description", "compute", "scoringUri", "swaggerUri")),
    "properties": {},
    "authMode": "Key",
    "traffic": {},
    "mirrorTraffic": {},
    "publicNetworkAccess": "Enabled",
}


def _shape(endpoint: Document, _: str) -> None:
    """An endpoint has no address until it is made."""
    told(endpoint, "createdAt", "createdBy", "lastModifiedAt")
    properties = endpoint["properties"]
    if properties["provisioningState"] == "Creating":
        properties |= {"scoringUri": None, "swaggerUri": None}
    fill(endpoint, {"tags": {}, "kind": "Managed"})
    fill(properties, EVERY)
    group, _, rest = endpoint["id"].replace("/resourceGroups/", "/resourcegroups/").partition("/providers/")
    head, name = rest.lower().rsplit("/", 1)
    properties["properties"]["azureml.onlineendpointid"] = f"{group}/providers/{head}/{name}"


SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", ENDPOINTS, arm.listing(KIND)),
    managed("GET", ENDPOINT, arm.get),
    managed("PUT", ENDPOINT, put),
    managed("PATCH", ENDPOINT, patch),
    managed("DELETE", ENDPOINT, delete),
    managed("POST", f"{ENDPOINT}/listKeys", list_keys),
    managed("POST", f"{ENDPOINT}/regenerateKeys", regenerate_keys),
    managed("POST", f"{ENDPOINT}/token", token),
]
