"""Where flows live: a Foundry project with its hub, or an Azure ML workspace; one client speaks to both."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from deploy.azure.provision import Resource, foundations, ml_workspace, own_parts, parts_of
from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Cost, Look, Step
from deploy.azure.shared.providers import missing_providers
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
        if self.cloud.read(self.id) is None:
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


@dataclass(frozen=True)
class AiServices:
    """The hub's connection to an account of Azure AI Services, with the login of who uses it: no key is kept.

    As azure-ai-ml's AzureAIServicesConnection is sent.
    """

    cloud: Cloud
    account: str
    kind: str = "connection"
    name: str = "ai-services"
    cost: Cost = "free"

    @property
    def _account_id(self) -> str:
        kind = "Microsoft.CognitiveServices/accounts"
        return self.account if self.account.startswith("/") else self.cloud.names.id(kind, self.account)

    @property
    def _id(self) -> str:
        return f"{self.cloud.names.hub_id}/connections/{self.name}"

    def look(self) -> Look:
        if self.cloud.read(self._account_id) is None:
            raise BadInput(
                f"there is no Azure AI Services account {self._account_id}",
                "--ai-services NAME in the resource group, or its whole id",
            )
        found = self.cloud.read(self._id)
        known = ((found or {}).get("properties") or {}).get("metadata") or {}
        if str(known.get("ResourceId")).lower() == self._account_id.lower():
            return Look("keep")
        return Look("create" if found is None else "update", f"to {self._account_id.rsplit('/', 1)[1]}")

    def make(self) -> None:
        account = self.cloud.read(self._account_id) or {}
        properties = {
            "category": "AIServices",
            "authType": "AAD",
            "target": account["properties"]["endpoint"],
            "isSharedToAll": True,
            "metadata": {"ApiType": "Azure", "ResourceId": self._account_id, OURS: "create"},
        }
        self.cloud.put(self._id, {"properties": properties}, f"connection {self.name}")


def project_steps(cloud: Cloud, ai_services: str = "") -> list[Step]:
    """Hub and project beside the endpoints' workspace, whose `cloud` this is.

    `ai_services` is an existing account of Azure AI Services, by name or id, to connect the hub to, as the
    portal offers. Hub and project share the workspace's storage, vault, insights and registry where it
    exists: Azure names containers and shares after the workspace that uses them.
    """
    names = cloud.names
    workspace = cloud.read(names.workspace_id)
    parts = parts_of(workspace) if workspace else own_parts(names)
    return [
        *missing_providers(cloud),
        Resource(cloud, "resource group", names.group_id, {}),
        *([] if workspace else foundations(cloud)),
        ml_workspace(cloud, "hub", names.hub_id, parts),
        *([AiServices(cloud, ai_services)] if ai_services else []),
        ml_workspace(cloud, "project", names.project_id, {"hubResourceId": names.hub_id}),
    ]
