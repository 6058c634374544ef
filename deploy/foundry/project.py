"""Hub and project as steps. They stand on the workspace's storage, vault and insights, if it is there."""

from typing import Any

from deploy.azure.provision import GROUP_API, WORKSPACE_API, Parts, foundations, resource
from deploy.azure.steps.arm import read
from deploy.azure.steps.plan import Step
from deploy.azure.steps.session import Cloud

ML_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"


def hub_id(cloud: Cloud) -> str:
    return cloud.names.id(ML_WORKSPACES, cloud.names.hub)


def project_id(cloud: Cloud) -> str:
    return cloud.names.id(ML_WORKSPACES, cloud.names.project)


def project_steps(cloud: Cloud) -> list[Step]:
    """`cloud` is that of the endpoints' workspace. Reads whether it exists: then its parts are shared.

    Azure names containers and shares after the workspace that uses them, so several may share an account.
    """
    workspace = read(cloud, cloud.names.workspace_id, WORKSPACE_API)
    parts = Parts.of(workspace) if workspace else Parts.own(cloud.names)
    group = resource(cloud, "resource group", cloud.names.group_id, GROUP_API, {})
    made: list[Step] = [] if workspace else foundations(cloud, parts)
    return [group, *made, _hub(cloud, parts), _project(cloud)]


def _hub(cloud: Cloud, parts: Parts) -> Step:
    properties = {
        "friendlyName": cloud.names.hub,
        "storageAccount": parts.storage,
        "keyVault": parts.vault,
        "applicationInsights": parts.insights,
        "containerRegistry": parts.registry,
    }
    return resource(cloud, "hub", hub_id(cloud), WORKSPACE_API, _body("Hub", properties))


def _project(cloud: Cloud) -> Step:
    properties = {"friendlyName": cloud.names.project, "hubResourceId": hub_id(cloud)}
    return resource(cloud, "project", project_id(cloud), WORKSPACE_API, _body("Project", properties))


def _body(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in properties.items() if value}
    return {"kind": kind, "identity": {"type": "SystemAssigned"}, "properties": given}
