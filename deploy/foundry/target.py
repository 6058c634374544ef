"""Where flows live: a Foundry project with its hub, or an Azure ML workspace; one client speaks to both."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deploy.azure.provision import GROUP_API, WORKSPACE_API, Parts, foundations, resource
from deploy.azure.shared.arm import read
from deploy.azure.shared.names import ML
from deploy.azure.shared.plan import Step
from deploy.azure.shared.session import Cloud, connect
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from promptflow.azure._pf_client import PFClient

LONGEST_NAME = 32


@dataclass(frozen=True)
class Target:
    """`cloud` is the place of connections, flows and runs; `endpoints` the workspace that serves models."""

    cloud: Cloud
    endpoints: Cloud

    @property
    def name(self) -> str:
        return self.cloud.names.workspace

    @property
    def id(self) -> str:
        return self.cloud.names.workspace_id

    @property
    def is_project(self) -> bool:
        return self.name != self.endpoints.names.workspace

    def require(self) -> None:
        """Raises Phi3flowError where the project, or the workspace, does not exist."""
        if read(self.cloud, self.id, WORKSPACE_API) is None:
            kind, command = "workspace", "azure provision"
            if self.is_project:
                kind, command = "Foundry project", "foundry create"
            raise Phi3flowError(f"there is no {kind} {self.name}", f"phi3flow {command}")

    @cached_property
    def pf(self) -> "PFClient":
        """Prompt flow's client for the cloud. The caller has entered a Prompt flow home."""
        from promptflow.azure._pf_client import PFClient

        self.require()
        return PFClient(ml_client=self.cloud.ml)


def target_of(settings: Settings, *, workspace: bool) -> Target:
    """The project beside the settings' workspace, or with `workspace` that itself. Raises BadInput."""
    endpoints = connect(settings)
    if workspace:
        return Target(endpoints, endpoints)
    names = endpoints.names
    if len(names.project) > LONGEST_NAME:
        raise BadInput(
            f"the project's name {names.project} is longer than {LONGEST_NAME} characters",
            "choose a shorter PHI3FLOW_AZURE_WORKSPACE",
        )
    say(f"Foundry project {names.project}, hub {names.hub}")
    return Target(replace(endpoints, names=replace(names, workspace=names.project)), endpoints)


def hub_id(cloud: Cloud) -> str:
    return cloud.names.id(f"{ML}/workspaces", cloud.names.hub)


def project_id(cloud: Cloud) -> str:
    return cloud.names.id(f"{ML}/workspaces", cloud.names.project)


def project_steps(cloud: Cloud) -> list[Step]:
    """Hub and project beside the endpoints' workspace, whose `cloud` this is.

    They share its storage, vault, insights and registry where it exists: Azure names containers and shares
    after the workspace that uses them.
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
