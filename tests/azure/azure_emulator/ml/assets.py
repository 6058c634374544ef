"""Versioned assets: code, data, environments and models. A version never changes what it holds."""

import json

import yaml

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.locations import long_uri
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import BY_USER, Shape, fill, told
from azure_emulator.front.routing import Handler, Route
from azure_emulator.front.wire import Document, Reply, Request, front_error
from azure_emulator.ml import datastores
from azure_emulator.ml.job_outputs import resolve_job_output

FAMILIES = {
    "codes": ("codeUri",),
    "data": ("dataUri", "dataType"),
    "environments": ("image", "condaFile", "build"),
    "models": ("modelUri", "modelType"),
}


def _put(family: str) -> Handler:
    """PUT of a version. Only tags, description and archiving may change later: else ARM answers 409."""
    fixed = FAMILIES[family]

    def handler(cloud: Cloud, request: Request) -> Reply:
        cloud.store.require(arm.workspace_id(request))
        body, old = request.json, cloud.store.get(request.path)
        sent = body["properties"]
        if family == "data":
            sent["dataUri"] = long_uri(arm.workspace_id(request), sent["dataUri"], sent.get("dataType", ""))
        if family == "environments" and sent.get("condaFile"):
            sent["condaFile"] = json.dumps(yaml.safe_load(sent["condaFile"]), indent=2)
        if family == "models":
            sent["modelUri"] = sent["modelUri"].replace("/resourcegroups/", "/resourceGroups/")
            sent["modelUri"] = resolve_job_output(cloud.store, arm.workspace_id(request), sent["modelUri"])
            sent |= {"flavors": sent.get("flavors") or {}, "stage": sent.get("stage")}
        if old and any(sent.get(name) != old["properties"].get(name) for name in fixed):
            message = f"The asset {request['name']} version {request['version']} exists with other content."
            raise front_error(409, "UserError", message)
        kind = f"{ML}/workspaces/{family}/versions"
        asset = resource_document(request.path, kind, body, old, provisioningState="Succeeded")
        cloud.store.put(asset)
        _put_container(cloud, request, family)
        return Reply(200, asset) if old else Reply(201, asset, arm.created_at(request))

    return handler


def _put_container(cloud: Cloud, request: Request, family: str) -> None:
    resource_id = request.path.rsplit("/versions/", 1)[0]
    versions = [item["name"] for item in cloud.store.below(f"{resource_id}/versions")]
    numbers = [int(item) for item in versions if item.isdigit()]
    properties = {
        "latestVersion": str(max(numbers)) if numbers else versions[-1],
        "nextVersion": str(max(numbers) + 1) if numbers else "1",
        "isArchived": False,
    }
    if family == "data":
        properties["dataType"] = request.json["properties"].get("dataType", "uri_folder")
    old = cloud.store.get(resource_id)
    kind = f"{ML}/workspaces/{family}"
    cloud.store.put(resource_document(resource_id, kind, {"properties": properties}, old))


def list_versions(cloud: Cloud, request: Request) -> Reply:
    """The newest first, as `$orderBy=createdtime desc` asks; `$top` cuts; `hash` asks for equal content."""
    found = _alike(cloud, request) if "hash" in request.query else cloud.store.below(request.path)[::-1]
    found = [item for item in found if not item["properties"].get("isArchived")]
    return Reply(200, {"value": _newest(found)[: int(request.query.get("$top") or len(found) or 1)]})


def _alike(cloud: Cloud, request: Request) -> list[Document]:
    """Versions with that content hash regardless of name, as the service's own description of `hash` says.

    So the SDK finds code again that it had registered under a random name.
    """
    family = request.path.rsplit("/", 2)[0]
    wanted = {"hash_sha256": request.query["hash"], "hash_version": request.query["hashVersion"]}
    found = cloud.store.below(family, kind=f"{ML}/workspaces/{family.rsplit('/', 1)[1]}/versions")
    return [item for item in found if wanted.items() <= item["properties"].get("properties", {}).items()]


def _newest(found: list[Document]) -> list[Document]:
    return sorted(found, key=lambda item: item["systemData"]["createdAt"], reverse=True)


BASE = {"description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False}
NOTHING = dict.fromkeys(("autoDeleteSetting", "intellectualProperty"))
EVERY: dict[str, Document] = {
    "codes": BASE,
    "data": {**BASE, **NOTHING, "stage": None},
    "environments": {
        **BASE,
        **NOTHING,
        "properties": {"azureml.labels": "latest"},
        "environmentType": "UserCreated",
        "image": None,
        "condaFile": None,
        "osType": "Linux",
        "autoRebuild": "Disabled",
        "stage": "Development",
    },
    "models": {**BASE, **NOTHING, "jobName": None, "flavors": {}, "stage": "Development"},
}


def _shape_of(family: str) -> Shape:
    def shape(asset: Document, _: str) -> None:
        properties = asset["properties"]
        fill(properties, EVERY[family])
        if family == "models":
            properties["stage"] = properties["stage"] or "Development"
        if family == "data":
            properties.pop("provisioningState", None)
            told(asset, "createdAt", "createdBy", "createdByType", "lastModifiedAt")
        else:
            told(asset, *BY_USER)

    return shape


def _container_shape(container: Document, _: str) -> None:
    fill(container["properties"], dict.fromkeys(("description", "tags", "properties")))
    told(container, "createdAt", "createdBy", "createdByType", "lastModifiedAt")


SHAPES: dict[str, Shape] = {
    **{f"{ML}/workspaces/{family}": _container_shape for family in FAMILIES},
    **{f"{ML}/workspaces/{family}/versions": _shape_of(family) for family in FAMILIES},
}


def _routes(family: str) -> list[Route]:
    parent = f"{WORKSPACE}/{family}"
    version = f"{parent}/{{name}}/versions/{{version}}"
    return [
        managed("GET", parent, arm.listing(f"{ML}/workspaces/{family}")),
        managed("GET", f"{parent}/{{name}}", arm.get),
        managed("GET", f"{parent}/{{name}}/versions", list_versions),
        managed("GET", version, arm.get),
        managed("PUT", version, _put(family)),
        managed("POST", f"{version}/startPendingUpload", datastores.start_upload),
    ]


ROUTES = [route for family in FAMILIES for route in _routes(family)]
