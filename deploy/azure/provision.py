"""The workspace and what it needs, each with a name that follows from the settings.

Everything is put by its ARM id through one client, not by a template: each step can then be compared with
what exists, be repeated, and be refused alone. The workspace gets its own storage account, key vault,
insights and registry, so that their names are known and the identity's roles have targets.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.azure.shared.arm import ArmResource, read
from deploy.azure.shared.names import OURS, Names
from deploy.azure.shared.plan import Cost, Look, Step
from deploy.azure.shared.session import Cloud
from deploy.azure.shared.sizes import Profile

AUTHORIZATION = "Microsoft.Authorization"
ROLES_API = "2022-04-01"
GROUP_API = "2021-04-01"
WORKSPACE_API = "2024-10-01"
IDENTITY_API = "2023-01-31"
VAULT_API = "2023-07-01"
IDLE_SECONDS = 120
# The least that an endpoint and a cluster need: to read the model and to pull the image. The tutorials'
# Contributor on the whole group would let a stolen container change or delete everything in it.
BLOB_READER = ("Storage Blob Data Reader", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1")
ACR_PULL = ("AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d")


@dataclass(frozen=True)
class Parts:
    """Ids of what a workspace stands on."""

    storage: str
    vault: str
    insights: str
    registry: str | None

    @classmethod
    def own(cls, names: Names) -> "Parts":
        return cls(
            names.id("Microsoft.Storage/storageAccounts", names.global_name),
            names.id("Microsoft.KeyVault/vaults", names.vault),
            names.id("Microsoft.Insights/components", f"{names.workspace}-insights"),
            names.id("Microsoft.ContainerRegistry/registries", names.global_name),
        )

    @classmethod
    def of(cls, workspace: Mapping[str, Any]) -> "Parts":
        """Those of an existing workspace, read back from it."""
        found = workspace["properties"]
        return cls(
            found["storageAccount"],
            found.get("keyVault") or "",
            found.get("applicationInsights") or "",
            found.get("containerRegistry"),
        )


def provision_steps(cloud: Cloud, profile: Profile, nodes: int) -> list[Step]:
    """In an order in which each step finds what it refers to; reads the workspace to tell whose it is."""
    names = cloud.names
    steps: list[Step] = [resource(cloud, "resource group", names.group_id, GROUP_API, {})]
    workspace = read(cloud, names.workspace_id, WORKSPACE_API)
    if workspace is not None and OURS not in (workspace.get("tags") or {}):
        parts = Parts.of(workspace)
        steps += [_workspace(cloud, Parts.own(names))]
    else:
        parts = Parts.own(names)
        steps += [*foundations(cloud, parts), _workspace(cloud, parts)]
    steps += [resource(cloud, "managed identity", names.identity_id, IDENTITY_API, {})]
    steps += [RoleAssignment(cloud, *BLOB_READER, parts.storage)]
    if parts.registry:
        steps += [RoleAssignment(cloud, *ACR_PULL, parts.registry)]
    return [*steps, compute(cloud, profile, nodes)]


def foundations(cloud: Cloud, parts: Parts) -> list[Step]:
    """What a workspace, or a hub, stands on."""
    logs = cloud.names.id("Microsoft.OperationalInsights/workspaces", f"{cloud.names.workspace}-logs")
    storage = {
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        "properties": {
            "allowBlobPublicAccess": False,
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
        },
    }
    vault = {
        "tenantId": cloud.tenant,
        "sku": {"name": "standard", "family": "A"},
        "accessPolicies": [],
        "enableRbacAuthorization": True,
    }
    insights = {"kind": "web", "properties": {"Application_Type": "web", "WorkspaceResourceId": logs}}
    registry = {"sku": {"name": "Basic"}}
    pay: Cost = "by the month"
    return [
        resource(cloud, "log workspace", logs, "2022-10-01", {"properties": {"retentionInDays": 30}}),
        resource(cloud, "storage account", parts.storage, "2023-04-01", storage, cost=pay),
        _vault(cloud, parts.vault, vault),
        resource(cloud, "insights", parts.insights, "2020-02-02", insights),
        resource(cloud, "container registry", str(parts.registry), "2023-07-01", registry, cost=pay),
    ]


def _vault(cloud: Cloud, vault_id: str, properties: Mapping[str, Any]) -> ArmResource:
    """Azure keeps a deleted vault, and its name, for 90 days: one that a teardown deleted comes back."""
    names = cloud.names
    place = f"/subscriptions/{names.subscription}/providers/Microsoft.KeyVault/locations/{names.region}"

    def body() -> Mapping[str, Any]:
        deleted = read(cloud, f"{place}/deletedVaults/{names.vault}", VAULT_API) is not None
        mode = {"createMode": "recover"} if deleted else {}
        return {"location": names.region, "properties": {**properties, **mode}}

    return ArmResource(cloud, "key vault", vault_id, VAULT_API, body, "free", {OURS: "provision"})


def _workspace(cloud: Cloud, parts: Parts) -> ArmResource:
    properties = {
        "friendlyName": cloud.names.workspace,
        "storageAccount": parts.storage,
        "keyVault": parts.vault,
        "applicationInsights": parts.insights,
        "containerRegistry": parts.registry,
    }
    body = {"kind": "Default", "identity": {"type": "SystemAssigned"}, "properties": properties}
    return resource(cloud, "workspace", cloud.names.workspace_id, WORKSPACE_API, body)


def compute(cloud: Cloud, profile: Profile, nodes: int) -> ArmResource:
    """A cluster of 0 to `nodes` machines that costs nothing while no job runs."""
    scale = {
        "minNodeCount": 0,
        "maxNodeCount": nodes,
        "nodeIdleTimeBeforeScaleDown": f"PT{IDLE_SECONDS}S",
    }
    cluster = {"vmSize": profile.size, "vmPriority": "Dedicated", "scaleSettings": scale}
    # The registry has no admin password, so its nodes pull images as the identity.
    identity = {"type": "UserAssigned", "userAssignedIdentities": {cloud.names.identity_id: {}}}
    body = {"identity": identity, "properties": {"computeType": "AmlCompute", "properties": cluster}}
    resource_id = cloud.names.compute_id(profile.compute)
    return resource(cloud, "cluster", resource_id, WORKSPACE_API, body, cost="while it runs")


def resource(
    cloud: Cloud, kind: str, resource_id: str, api: str, body: Mapping[str, Any], *, cost: Cost = "free"
) -> ArmResource:
    """A step that puts one resource into the region of the settings, with our tag."""
    complete = {"location": cloud.names.region, **body}
    return ArmResource(cloud, kind, resource_id, api, lambda: complete, cost, {OURS: "provision"})


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
        known = principal is not None and read(self.cloud, self._id(principal), ROLES_API) is not None
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
        try:
            poller = self.cloud.arm.resources.begin_create_or_update_by_id(
                self._id(principal), {"properties": properties}, api_version=ROLES_API
            )
            self.cloud.finish(poller, f"role {self.name}")
        except ResourceExistsError:  # 409 RoleAssignmentExists: somebody gave the role by hand
            pass

    def _principal(self) -> str | None:
        found = read(self.cloud, self.cloud.names.identity_id, IDENTITY_API)
        return str(found["properties"]["principalId"]) if found else None

    def _id(self, principal: str) -> str:
        name = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.scope}/{self.guid}/{principal}".lower())
        return f"{self.scope}/providers/{AUTHORIZATION}/roleAssignments/{name}"
