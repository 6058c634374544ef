"""What the families of ARM resources have in common: get, list, delete, and routes that ask for a token."""

from dataclasses import replace

from azure_emulator.arm.operations import Ending
from azure_emulator.arm.registrations import require_registered
from azure_emulator.arm.roles import require_allowed
from azure_emulator.arm.services import ML, Service
from azure_emulator.arm.store import require_settled
from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Handler, Plane, Route
from azure_emulator.front.wire import Document, Reply, Request, require_token

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{{group}}"
WORKSPACE = f"{GROUP}/providers/{ML}/workspaces/{{workspace}}"


def managed(method: str, template: str, handler: Handler, plane: Plane = Plane.MANAGEMENT) -> Route:
    """A route of the control plane: without a token it answers 401, a role 403, its provider 409."""

    def with_token(cloud: Cloud, request: Request) -> Reply:
        require_token(request)
        if plane is Plane.MANAGEMENT:
            require_allowed(cloud, request)
            require_registered(cloud, request)
        return handler(cloud, request)

    return Route(method, plane, template, with_token)


def workspace_id(request: Request) -> str:
    group = f"/subscriptions/{request['subscription']}/resourceGroups/{request['group']}"
    return f"{group}/providers/{ML}/workspaces/{request['workspace']}"


def get(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, cloud.store.require(request.path))


def head(cloud: Cloud, request: Request) -> Reply:
    return Reply(204 if cloud.store.get(request.path) else 404)


def listing(kind: str) -> Handler:
    """Everything of one ARM type under the path's parent."""

    def handler(cloud: Cloud, request: Request) -> Reply:
        return Reply(200, {"value": cloud.store.below(request.path, kind=kind)})

    return handler


def deletion(service: Service) -> Handler:
    """DELETE as a long-running operation; 204 where there is nothing."""

    def handler(cloud: Cloud, request: Request) -> Reply:
        resource = cloud.store.get(request.path)
        if resource is None:
            return Reply(204)
        require_settled(resource)
        with cloud.store.changing(request.path) as properties:
            properties["provisioningState"] = "Deleting"
        operation = cloud.operations.begin(Ending(request.path, delete=True))
        return accepted(cloud, operation, service, resource)

    return handler


def accepted(cloud: Cloud, operation: str, service: Service, resource: Document) -> Reply:
    """202 for an operation on a resource."""
    return Reply(202, None, _headers(cloud, operation, service, resource))


def begun(cloud: Cloud, request: Request, operation: str, *, created: bool, service: Service) -> Reply:
    """The answer to a PUT that goes on: the resource as it is now, and where to follow the operation."""
    resource = cloud.store.require(request.path)
    headers = _headers(cloud, operation, service, resource, made=request.path)
    return Reply(201 if created else 200, resource, headers)


def _headers(
    cloud: Cloud, operation: str, service: Service, resource: Document, made: str = ""
) -> dict[str, str]:
    workspace = cloud.store.get(workspace_of(resource["id"])) or resource
    location = resource.get("location") or workspace.get("location", "")
    marker = str(workspace["properties"].get("workspaceId", ""))
    return cloud.operations.headers(operation, service=service, location=location, made=made, marker=marker)


def note_operation(cloud: Cloud, resource_id: str, operation: str, service: Service) -> None:
    """Endpoints and deployments name the operation that made them among their properties."""
    address = _headers(cloud, operation, service, cloud.store.require(resource_id))["Azure-AsyncOperation"]
    with cloud.store.changing(resource_id) as properties:
        properties["properties"] = {**(properties.get("properties") or {}), "AzureAsyncOperationUri": address}


def workspace_of(resource_id: str) -> str:
    """The workspace that a resource of Azure ML is in."""
    parts = resource_id.split("/")
    return "/".join(parts[: parts.index("workspaces") + 2]) if "workspaces" in parts else resource_id


def created_at(request: Request) -> dict[str, str]:
    """The header that says where something new is."""
    return {"Location": f"https://{request.host}{request.path}"}


def at(request: Request, path: str) -> Request:
    """The same request for another path."""
    return replace(request, path=path)
