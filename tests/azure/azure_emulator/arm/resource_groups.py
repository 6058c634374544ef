"""Resource groups, and what lies in them."""

import re
from dataclasses import replace

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, SUBSCRIPTION, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import GENERIC
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.storage.key_vaults import soft_delete
from azure_emulator.storage.storage_accounts import forget_accounts

KIND = "Microsoft.Resources/resourceGroups"
GROUPS = replace(GENERIC, provider="Microsoft.Resources")
TAG_FILTER = re.compile(
    r"tagName eq '(?P<name>[^']*)'(?: and tagValue eq '(?P<value>[^']*)')?", re.IGNORECASE
)
TYPE_FILTER = re.compile(r"resourceType eq '(?P<type>[^']*)'", re.IGNORECASE)


def require_group(cloud: Cloud, request: Request) -> Document:
    group = cloud.store.get(f"/subscriptions/{request['subscription']}/resourceGroups/{request['group']}")
    if group is None:
        message = f"Resource group '{request['group']}' could not be found."
        raise azure_error(404, "ResourceGroupNotFound", message)
    return group


def require_open_group(cloud: Cloud, request: Request) -> Document:
    """For writes: raise ARM's 409 while the group is being deleted."""
    group = require_group(cloud, request)
    if group["properties"]["provisioningState"] == "Deleting":
        message = f"The resource group '{request['group']}' is in deprovisioning state."
        raise azure_error(409, "ResourceGroupBeingDeleted", message)
    return group


def get(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, require_group(cloud, request))


def put(cloud: Cloud, request: Request) -> Reply:
    old, body = cloud.store.get(request.path), request.json
    if old:
        require_open_group(cloud, request)
    if old and body.get("location", old["location"]) != old["location"]:
        message = f"The Resource group '{request['group']}' already exists in location '{old['location']}'."
        raise azure_error(409, "InvalidResourceGroupLocation", message)
    group = resource_document(request.path, KIND, body, old, provisioningState="Succeeded")
    cloud.store.put(group)
    return Reply(200 if old else 201, group)


def patch(cloud: Cloud, request: Request) -> Reply:
    group = require_group(cloud, request)
    group |= {"tags": request.json.get("tags", group.get("tags"))}
    cloud.store.put(group)
    return Reply(200, group)


def delete(cloud: Cloud, request: Request) -> Reply:
    group = require_group(cloud, request)
    with cloud.store.changing(request.path) as properties:
        properties["provisioningState"] = "Deleting"
    soft_delete(cloud, request.path)
    forget_accounts(cloud, request.path)
    operation = cloud.operations.begin(Ending(request.path, delete=True))
    headers = cloud.operations.headers(operation, service=GROUPS, location=group["location"])
    del headers["Azure-AsyncOperation"]  # this one is followed by its Location alone
    return Reply(202, None, headers)


def resources(cloud: Cloud, request: Request) -> Reply:
    """What ARM tracks: top-level resources, endpoints and deployments; `$filter` by tag or by type."""
    require_group(cloud, request)
    found = cloud.store.below(request.path.rsplit("/", 1)[0])
    wanted = request.query.get("$filter", "")
    return Reply(
        200, {"value": [_listed(item) for item in found if _is_tracked(item) and _passes(item, wanted)]}
    )


def list_all(cloud: Cloud, request: Request) -> Reply:
    groups = cloud.store.below(request.path, kind=KIND)
    return Reply(200, {"value": [g for g in groups if _passes(g, request.query.get("$filter", ""))]})


def _is_tracked(resource: Document) -> bool:
    hidden = ("Microsoft.Authorization", "Microsoft.Resources")
    kind = resource["type"]
    return (kind.count("/") == 1 and not kind.startswith(hidden)) or "/onlineEndpoints" in kind


def _listed(resource: Document) -> Document:
    """A child is named with its parents: workspace/endpoint/deployment."""
    names = resource["id"].split("/providers/")[-1].split("/")[2::2]
    return {**resource, "name": "/".join(names)}


def _passes(resource: Document, wanted: str) -> bool:
    tag, kind = TAG_FILTER.search(wanted), TYPE_FILTER.search(wanted)
    tags = resource.get("tags") or {}
    if tag and (tag["name"] not in tags or tag["value"] not in {None, tags[tag["name"]]}):
        return False
    return not kind or resource["type"].lower() == kind["type"].lower()


ROUTES = [
    managed("GET", f"{SUBSCRIPTION}/resourceGroups", list_all),
    managed("GET", GROUP, get),
    managed("HEAD", GROUP, arm.head),
    managed("PUT", GROUP, put),
    managed("PATCH", GROUP, patch),
    managed("DELETE", GROUP, delete),
    managed("GET", f"{GROUP}/resources", resources),
]
