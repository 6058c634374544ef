"""Where flows live: a Foundry project, or an Azure ML workspace; the same client speaks to both."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from deploy.azure.provision import WORKSPACE_API
from deploy.azure.steps.arm import read
from deploy.azure.steps.session import Cloud, connect
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
            kind, command = ("Foundry project", "foundry create") if self.is_project else WORKSPACE
            raise Phi3flowError(f"there is no {kind} {self.name}", f"phi3flow {command}")

    @cached_property
    def pf(self) -> "PFClient":
        """Prompt flow's client for the cloud. The caller has entered a Prompt flow home."""
        from promptflow.azure._pf_client import PFClient

        self.require()
        return PFClient(ml_client=self.cloud.ml)


WORKSPACE = ("workspace", "azure provision")


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
