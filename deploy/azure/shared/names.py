"""What everything in Azure is called: it follows from the settings, so that a rerun finds its own work."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED

OURS = "phi3flow"  # the tag that makes a resource ours; its value says which verb made it
EXPIRES = "phi3flow-expires"
ML = "Microsoft.MachineLearningServices"


def is_ours(tags: Mapping[str, str] | None) -> bool:
    """Whether phi3flow made what has these tags."""
    return OURS in (tags or {})


class Given(NamedTuple):
    """Existing parts by name, '' for ours: identity (or its id), cluster, endpoint, environment."""

    identity: str = ""
    compute: str = ""
    endpoint: str = ""
    environment: str = ""


NOTHING_GIVEN = Given()


@dataclass(frozen=True)
class Names:
    """Names and ids in one resource group; those unique in all of Azure end in a hash of where they are.

    `given` holds what somebody made otherwise, such as in the portal, and the settings name: it is used as it
    is, without our tag.
    """

    subscription: str
    group: str
    workspace: str
    region: str
    given: Given = NOTHING_GIVEN

    @classmethod
    def of(cls, settings: Settings) -> "Names":
        return cls(
            settings.azure_subscription,
            settings.azure_resource_group,
            settings.azure_workspace,
            settings.azure_region,
            Given(
                settings.azure_identity,
                settings.azure_compute,
                settings.azure_endpoint,
                settings.azure_environment,
            ),
        )

    @property
    def mark(self) -> str:
        place = f"{self.subscription}/{self.group}/{self.workspace}".lower()
        return hashlib.sha256(place.encode()).hexdigest()[:10]

    @property
    def global_name(self) -> str:
        """Of storage account and registry: lower case letters and digits, at most 24 characters."""
        return f"phi3flow{self.mark}"

    @property
    def vault(self) -> str:
        return f"phi3flow-{self.mark}"

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    @property
    def workspace_id(self) -> str:
        return self.id(f"{ML}/workspaces", self.workspace)

    @property
    def hub(self) -> str:
        return f"{self.workspace}-hub"

    @property
    def hub_id(self) -> str:
        return self.id(f"{ML}/workspaces", self.hub)

    @property
    def project(self) -> str:
        """The Foundry project that goes with the workspace."""
        return f"{self.workspace}-project"

    @property
    def project_id(self) -> str:
        return self.id(f"{ML}/workspaces", self.project)

    @property
    def identity_id(self) -> str:
        name = self.given.identity or f"{self.workspace}-identity"
        if name.startswith("/"):
            return name
        return self.id("Microsoft.ManagedIdentity/userAssignedIdentities", name)

    def id(self, kind: str, name: str) -> str:
        """`kind` as in `Microsoft.Storage/storageAccounts`."""
        return f"{self.group_id}/providers/{kind}/{name}"

    def compute_id(self, name: str) -> str:
        return f"{self.workspace_id}/computes/{name}"

    def endpoint(self, model: str) -> str:
        """An endpoint's name is a host name in its region; `model` is phi3-tuned or phi3-base."""
        if self.given.endpoint and model == TUNED.connection:
            return self.given.endpoint
        return f"{model}-{self.mark}"
