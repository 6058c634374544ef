"""The workspace and what it needs, each with a name that follows from the settings.

Everything is put by its ARM id through one client, not by a template: each step can then be compared with
what exists, be repeated, and be refused alone. The workspace gets its own storage account, key vault,
insights and registry, so that their names are known and the identity's roles have targets.
"""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deploy.azure.shared.names import OURS, Names, is_ours
from deploy.azure.shared.plan import Cost, Look, Step
from deploy.azure.shared.providers import missing_providers
from deploy.azure.shared.session import Cloud, if_allowed
from deploy.azure.shared.sizes import Profile
from phi3flow.core.errors import BadInput

AUTHORIZATION = "Microsoft.Authorization"
IDLE_TIME = "PT2M"  # ISO 8601 as Azure writes it back: PT120S would differ at every run
# The least that an endpoint and a cluster need: to read the model and to pull the image. The tutorials'
# Contributor on the whole group would let a stolen container change or delete everything in it.
ROLES = {
    "storageAccount": ("Storage Blob Data Reader", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"),
    "containerRegistry": ("AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d"),
}
PARTS = ("storageAccount", "keyVault", "applicationInsights", "containerRegistry")


@dataclass(frozen=True)
class Resource:
    """One ARM resource as a step, put into the region of the settings with our tag.

    What exists without our tag was made by somebody else: it is used as it is, and never changed.
    """

    cloud: Cloud
    kind: str
    id: str
    body: Mapping[str, Any]
    cost: Cost = "free"

    @property
    def name(self) -> str:
        return self.id.rsplit("/", 1)[1]

    @property
    def _wanted(self) -> dict[str, Any]:
        return {"location": self.cloud.names.region, "tags": {OURS: "provision"}, **self.body}

    def look(self) -> Look:
        found = self.cloud.read(self.id)
        if found is None:
            return Look("create")
        if not is_ours(found.get("tags")):
            return Look("keep", "not phi3flow's: used as it is")
        if str((found.get("properties") or {}).get("provisioningState")).lower() == "failed":
            return Look("update", "its creation had failed")
        different = differences(self._wanted, found)
        return Look("update", ", ".join(different)) if different else Look("keep")

    def make(self) -> None:
        self.cloud.put(self.id, self._wanted, f"{self.kind} {self.name}")


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Where Azure shows another value than the wanted one. What it does not show is not compared."""
    if isinstance(wanted, Mapping):
        shown = found if isinstance(found, Mapping) else {}
        return [
            text
            for name, value in wanted.items()
            if name in shown
            for text in differences(value, shown[name], f"{where}.{name}" if where else name)
        ]
    if found is None or isinstance(wanted, list):
        return []
    same = str(wanted).lower().replace(" ", "") == str(found).lower().replace(" ", "")
    return [] if same else [f"{where}: {found} -> {wanted}"]


def provision_steps(cloud: Cloud, profile: Profile, nodes: int) -> list[Step]:
    """In an order in which each step finds what it refers to; reads the workspace to tell whose it is."""
    names = cloud.names
    if names.given.identity and cloud.read(names.identity_id) is None:
        raise BadInput(f"there is no managed identity {names.identity_id}", "correct PHI3FLOW_AZURE_IDENTITY")
    workspace = cloud.read(names.workspace_id)
    if workspace is not None and not is_ours(workspace.get("tags")):
        made: list[Step] = []
        parts = parts_of(workspace)
    else:
        made, parts = foundations(cloud), own_parts(names)
    roles = {part: role for part, role in ROLES.items() if part in parts}
    return [
        *missing_providers(cloud),
        Resource(cloud, "resource group", names.group_id, {}),
        *made,
        ml_workspace(cloud, "workspace", names.workspace_id, parts),
        *([] if names.given.identity else [Resource(cloud, "managed identity", names.identity_id, {})]),
        *(RoleAssignment(cloud, *role, parts[part]) for part, role in roles.items()),
        cluster(cloud, profile, nodes),
    ]


def own_parts(names: Names) -> dict[str, str]:
    """Ids of what a workspace stands on, by the workspace's own properties."""
    return {
        "storageAccount": names.id("Microsoft.Storage/storageAccounts", names.global_name),
        "keyVault": names.id("Microsoft.KeyVault/vaults", names.vault),
        "applicationInsights": names.id("Microsoft.Insights/components", f"{names.workspace}-insights"),
        "containerRegistry": names.id("Microsoft.ContainerRegistry/registries", names.global_name),
    }


def parts_of(workspace: Mapping[str, Any]) -> dict[str, str]:
    """The same of an existing workspace, which may have no registry yet."""
    properties = workspace["properties"]
    return {part: properties[part] for part in PARTS if properties.get(part)}


def foundations(cloud: Cloud) -> list[Step]:
    """What a workspace, or a hub, stands on, made for it."""
    parts, names = own_parts(cloud.names), cloud.names
    logs = names.id("Microsoft.OperationalInsights/workspaces", f"{names.workspace}-logs")
    storage = {
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        "properties": {
            "allowBlobPublicAccess": False,
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
        },
    }
    insights = {"kind": "web", "properties": {"Application_Type": "web", "WorkspaceResourceId": logs}}
    registry = {"sku": {"name": "Basic"}}
    pay: Cost = "by the month"
    return [
        Resource(cloud, "log workspace", logs, {"properties": {"retentionInDays": 30}}),
        Resource(cloud, "storage account", parts["storageAccount"], storage, pay),
        Resource(cloud, "key vault", parts["keyVault"], {"properties": _vault(cloud)}),
        Resource(cloud, "insights", parts["applicationInsights"], insights),
        Resource(cloud, "container registry", parts["containerRegistry"], registry, pay),
    ]


def _vault(cloud: Cloud) -> dict[str, Any]:
    """Azure keeps a deleted vault, and its name, for 90 days: one that a teardown deleted comes back."""
    names = cloud.names
    place = f"/subscriptions/{names.subscription}/providers/Microsoft.KeyVault/locations/{names.region}"
    deleted = if_allowed(
        lambda: cloud.read(f"{place}/deletedVaults/{names.vault}"),
        "deleted key vaults",
        f"where Azure keeps one: az keyvault purge --name {names.vault}",
    )
    return {
        "tenantId": cloud.subscription["tenantId"],
        "sku": {"name": "standard", "family": "A"},
        "accessPolicies": [],
        "enableRbacAuthorization": True,
        **({"createMode": "recover"} if deleted is not None else {}),
    }


def ml_workspace(cloud: Cloud, kind: str, resource_id: str, properties: Mapping[str, str]) -> Resource:
    """A workspace of Azure ML, or a hub or project of Foundry, which are workspaces of another kind."""
    body = {
        "kind": "Default" if kind == "workspace" else kind.capitalize(),
        "identity": {"type": "SystemAssigned"},
        "properties": {"friendlyName": resource_id.rsplit("/", 1)[1], **properties},
    }
    return Resource(cloud, kind, resource_id, body)


def cluster(cloud: Cloud, profile: Profile, nodes: int) -> Resource:
    """0 to `nodes` machines, which cost nothing while no job runs."""
    scale = {
        "minNodeCount": 0,
        "maxNodeCount": nodes,
        "nodeIdleTimeBeforeScaleDown": IDLE_TIME,
    }
    machines = {"vmSize": profile.size, "vmPriority": "Dedicated", "scaleSettings": scale}
    # The registry has no admin password, so its nodes pull images as the identity.
    identity = {"type": "UserAssigned", "userAssignedIdentities": {cloud.names.identity_id: {}}}
    body = {"identity": identity, "properties": {"computeType": "AmlCompute", "properties": machines}}
    return Resource(cloud, "cluster", cloud.names.compute_id(profile.compute), body, "while it runs")


@dataclass(frozen=True)
class RoleAssignment:
    """One role of the endpoints' identity on one resource; the name follows from all three."""

    cloud: Cloud
    role: str
    guid: str
    scope: str
    kind: str = "role"
    cost: Cost = "free"

    @property
    def name(self) -> str:
        return f"{self.role} on {self.scope.rsplit('/', 1)[1]}"

    def look(self) -> Look:
        principal = self._principal()
        known = principal is not None and self.cloud.read(self._id(principal)) is not None
        return Look("keep" if known else "create")

    def make(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        principal = self._principal()
        assert principal is not None, "the identity is made by an earlier step"  # noqa: S101 - order of steps
        definition = f"/subscriptions/{self.cloud.names.subscription}/providers/{AUTHORIZATION}"
        properties = {
            "roleDefinitionId": f"{definition}/roleDefinitions/{self.guid}",
            "principalId": principal,
            "principalType": "ServicePrincipal",  # lets Azure assign before the directory has spread the news
        }
        with suppress(ResourceExistsError):  # 409 RoleAssignmentExists: somebody gave the role by hand
            self.cloud.put(self._id(principal), {"properties": properties}, f"role {self.name}")

    def _principal(self) -> str | None:
        found = self.cloud.read(self.cloud.names.identity_id)
        return str(found["properties"]["principalId"]) if found else None

    def _id(self, principal: str) -> str:
        name = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.scope}/{self.guid}/{principal}".lower())
        return f"{self.scope}/providers/{AUTHORIZATION}/roleAssignments/{name}"
