"""User-assigned managed identities, and who may do what: role definitions and assignments."""

import re
import uuid

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, managed
from azure_emulator.arm.resource_groups import require_open_group
from azure_emulator.arm.store import resource_document
from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error

IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
ASSIGNMENT = "Microsoft.Authorization/roleAssignments"
ASSIGNMENTS = f"/{{scope*}}/providers/{ASSIGNMENT}"
DEFINITIONS = "/{scope*}/providers/Microsoft.Authorization/roleDefinitions"
ROLES = {
    "Owner": "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    "Contributor": "b24988ac-6180-42a0-ab88-20f7382dd24c",
    "Reader": "acdd72a7-3385-48ef-bd42-f606fba81ae7",
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "Storage Blob Data Reader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "AcrPush": "8311e382-0749-4cb8-b61a-304f252e45ec",
    "AzureML Data Scientist": "f6c7c914-8db3-469d-8ca1-694a8f32e121",
    "AzureML Metrics Writer (preview)": "635dd51f-9968-44d3-b7fb-6d9a6bd613ae",
    "AzureML Compute Operator": "e503ece1-11d0-4e8e-8e2c-7a6c3bf38815",
}


def put_identity(cloud: Cloud, request: Request) -> Reply:
    require_open_group(cloud, request)
    old = cloud.store.get(request.path)
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"{request.path}#{uuid.uuid4()}")
    ids = {"principalId": str(made), "clientId": str(uuid.uuid5(made, "client")), "tenantId": tokens.TENANT}
    if old:
        ids = {name: old["properties"][name] for name in ids}
    identity = resource_document(request.path, IDENTITY, request.json, old, **ids)
    identity["id"] = identity["id"].replace("/resourceGroups/", "/resourcegroups/")  # this service's way
    cloud.store.put(identity)
    return Reply(200 if old else 201, identity)


def delete_identity(cloud: Cloud, request: Request) -> Reply:
    """Its role assignments stay behind, as in Azure, and name nobody any more."""
    there = cloud.store.get(request.path)
    cloud.store.delete(request.path)
    return Reply(200 if there else 204)


def list_definitions(cloud: Cloud, request: Request) -> Reply:
    wanted = re.fullmatch(r"roleName eq '(.*)'", request.query.get("$filter", ""))
    names = [name for name in ROLES if not wanted or wanted[1] == name]
    return Reply(200, {"value": [_definition(name) for name in names]})


def get_definition(cloud: Cloud, request: Request) -> Reply:
    names = [name for name, role in ROLES.items() if role == request["role"]]
    if not names:
        raise azure_error(404, "RoleDefinitionDoesNotExist", f"The role '{request['role']}' does not exist.")
    return Reply(200, _definition(names[0]))


def _definition(name: str) -> Document:
    parent = f"/subscriptions/{tokens.SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"
    properties = {"roleName": name, "type": "BuiltInRole", "permissions": [], "assignableScopes": ["/"]}
    return {
        "id": f"{parent}/{ROLES[name]}",
        "name": ROLES[name],
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": properties,
    }


def put_assignment(cloud: Cloud, request: Request) -> Reply:
    """409 for a second assignment of the same role, by whatever name; 400 for a principal that is unknown."""
    scope, wanted = f"/{request['scope']}", request.json["properties"]
    if scope.count("/") > 2 and cloud.store.get(scope) is None:
        raise azure_error(404, "ResourceNotFound", f"The scope '{scope}' was not found.")
    for other in _assignments(cloud):
        if _key(other["properties"], other["properties"]["scope"]) == _key(wanted, scope):
            raise azure_error(409, "RoleAssignmentExists", "The role assignment already exists.")
    if wanted["principalId"] not in _principals(cloud):
        principal = wanted["principalId"].replace("-", "")
        message = f"Principal {principal} does not exist in the directory {tokens.TENANT}."
        raise azure_error(400, "PrincipalNotFound", message)
    assignment = resource_document(request.path, ASSIGNMENT, request.json, None, scope=scope)
    cloud.store.put(assignment)
    return Reply(201, assignment)


def _key(properties: Document, scope: str) -> tuple[str, str, str]:
    role = properties["roleDefinitionId"].rsplit("/", 1)[1]
    return scope.lower(), properties["principalId"], role.lower()


def _assignments(cloud: Cloud) -> list[Document]:
    return cloud.store.below("", kind=ASSIGNMENT)


def _principals(cloud: Cloud) -> set[str]:
    """The user, every user-assigned identity, and the identities that resources have of their own."""
    everything = cloud.store.below("")
    found = {item["properties"].get("principalId") for item in everything if item["type"] == IDENTITY}
    own = {(item.get("identity") or {}).get("principalId") for item in everything}
    return {str(item) for item in found | own if item} | {tokens.OBJECT_ID}


def delete_assignment(cloud: Cloud, request: Request) -> Reply:
    there = cloud.store.get(request.path)
    cloud.store.delete(request.path)
    return Reply(200, there) if there else Reply(204)


def list_assignments(cloud: Cloud, request: Request) -> Reply:
    """Those at the scope and below it; `$filter=principalId eq '...'` and `assignedTo('...')` narrow them."""
    scope, wanted = f"/{request['scope']}".lower(), request.query.get("$filter", "")
    principal = re.search(r"(?:principalId eq|assignedTo\()\s*'([^']+)'", wanted)
    exact = "atScope()" in wanted
    found = [
        item
        for item in _assignments(cloud)
        if (not principal or item["properties"]["principalId"] == principal[1])
        and _covers(scope, item["properties"]["scope"].lower(), exact=exact)
    ]
    return Reply(200, {"value": found})


def _covers(scope: str, assigned: str, *, exact: bool) -> bool:
    """`atScope()` lists the scope and what is above it; without it, what is below as well."""
    above = scope == assigned or scope.startswith(assigned + "/")
    return above if exact else above or assigned.startswith(scope + "/")


ROUTES = [
    managed("GET", f"{GROUP}/providers/{IDENTITY}/{{identity}}", arm.get),
    managed("PUT", f"{GROUP}/providers/{IDENTITY}/{{identity}}", put_identity),
    managed("DELETE", f"{GROUP}/providers/{IDENTITY}/{{identity}}", delete_identity),
    managed("GET", DEFINITIONS, list_definitions),
    managed("GET", f"{DEFINITIONS}/{{role}}", get_definition),
    managed("GET", ASSIGNMENTS, list_assignments),
    managed("GET", f"{ASSIGNMENTS}/{{assignment}}", arm.get),
    managed("PUT", f"{ASSIGNMENTS}/{{assignment}}", put_assignment),
    managed("DELETE", f"{ASSIGNMENTS}/{{assignment}}", delete_assignment),
]
