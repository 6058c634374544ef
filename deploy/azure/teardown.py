"""Take away what carries our tag, the costliest first, and say what was left.

What has no tag was made by somebody else and stays. The resource group goes only if it is ours and nothing
else lies in it.
"""

from typing import Any, Literal

from deploy.azure.provision import GROUP_API, IDENTITY_API, VAULT_API, WORKSPACE_API
from deploy.azure.shared.arm import read
from deploy.azure.shared.names import EXPIRES
from deploy.azure.shared.plan import Action, Removal, not_ours, take_away
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.serving import of_ours
from deploy.azure.shared.session import Cloud
from deploy.azure.status import is_expired

What = Literal["everything", "expired", "old"]
ML_WORKSPACES = "microsoft.machinelearningservices/workspaces"
# In the order of removal: a workspace holds its endpoints, and stands on its storage.
API_OF = {
    ML_WORKSPACES: WORKSPACE_API,
    "microsoft.managedidentity/userassignedidentities": IDENTITY_API,
    "microsoft.insights/components": "2020-02-02",
    "microsoft.containerregistry/registries": "2023-07-01",
    "microsoft.keyvault/vaults": VAULT_API,
    "microsoft.storage/storageaccounts": "2023-04-01",
    "microsoft.operationalinsights/workspaces": "2022-10-01",
}


def teardown(cloud: Cloud, what: What, *, plan: bool) -> list[Action]:
    """Delete everything of ours, or only expired endpoints, or deployments without traffic.

    With `plan`, only say what. Raises Phi3flowError, which says what is left.
    """
    with explaining("teardown"):
        removals = _removals(cloud, what)
    return take_away(cloud, removals, plan=plan)


def _removals(cloud: Cloud, what: What) -> list[Removal]:
    group = read(cloud, cloud.names.group_id, GROUP_API)
    if group is None:
        return []
    workspace = read(cloud, cloud.names.workspace_id, WORKSPACE_API)
    removals = _in_workspace(cloud, what) if workspace else []
    if what != "everything":
        return removals
    resources = _resources(cloud)
    kept = sum(bool(one.keep_because) for one in resources)
    return [*removals, *resources, _group(cloud, group, kept)]


def _in_workspace(cloud: Cloud, what: What) -> list[Removal]:
    removals = []
    for endpoint in cloud.ml.online_endpoints.list():
        removals += _deployments(cloud, endpoint) if what == "old" else [_endpoint(cloud, endpoint, what)]
    if what == "everything":
        removals += [_cluster(cloud, one.name) for one in cloud.ml.compute.list(compute_type="AMLCompute")]
    return removals


def _endpoint(cloud: Cloud, endpoint: Any, what: What) -> Removal:
    operations, tags = cloud.ml.online_endpoints, endpoint.tags or {}
    expires = str(tags.get(EXPIRES, ""))
    keep_because = not_ours(tags)
    if not keep_because and what == "expired" and not is_expired(expires):
        keep_because = f"expires {expires or 'never'}"
    return Removal("endpoint", endpoint.name, keep_because, lambda: operations.begin_delete(endpoint.name))


def _deployments(cloud: Cloud, endpoint: Any) -> list[Removal]:
    """The deployments behind an endpoint, to be kept where they take traffic or wait for it."""
    return [_deployment(cloud, endpoint, one) for one in cloud.ml.online_deployments.list(endpoint.name)]


def _deployment(cloud: Cloud, endpoint: Any, one: Any) -> Removal:
    traffic = {**(endpoint.traffic or {}), **(endpoint.mirror_traffic or {})}
    waits = of_ours(endpoint) and (endpoint.tags or {}).get("verified") == one.name
    keep_because = not_ours(one.tags)
    if not keep_because and traffic.get(one.name):
        keep_because = "it takes traffic"
    if not keep_because and waits:
        keep_because = "it passed verify and waits for promote"
    operations = cloud.ml.online_deployments
    name = f"{endpoint.name}/{one.name}"
    return Removal("deployment", name, keep_because, lambda: operations.begin_delete(one.name, endpoint.name))


def _cluster(cloud: Cloud, name: str) -> Removal:
    found = read(cloud, cloud.names.compute_id(name), WORKSPACE_API) or {}
    return Removal("cluster", name, not_ours(found.get("tags")), lambda: cloud.ml.compute.begin_delete(name))


def _resources(cloud: Cloud) -> list[Removal]:
    listed = list(cloud.arm.resources.list_by_resource_group(cloud.names.group))
    return [_resource(cloud, one) for one in sorted(listed, key=_order)]


def _order(resource: Any) -> tuple[int, bool, str]:
    """As in API_OF; a hub goes after its projects."""
    kinds, kind = list(API_OF), str(resource.type).lower()
    place = kinds.index(kind) if kind in kinds else len(kinds)
    return place, str(resource.kind).lower() == "hub", str(resource.name)


def _resource(cloud: Cloud, one: Any) -> Removal:
    kind = str(one.type).lower()
    keep_because = not_ours(one.tags)
    if not keep_because and kind not in API_OF:
        keep_because = "of a kind that phi3flow does not make"

    def remove() -> Any:
        if kind == ML_WORKSPACES:
            return cloud.ml.workspaces.begin_delete(
                one.name, delete_dependent_resources=False, permanently_delete=True
            )
        return cloud.arm.resources.begin_delete_by_id(one.id, api_version=API_OF[kind])

    return Removal(kind.rsplit("/", 1)[1], str(one.name), keep_because, remove)


def _group(cloud: Cloud, group: dict[str, Any], kept: int) -> Removal:
    keep_because = not_ours(group.get("tags")) or (f"{kept} resources in it stay" if kept else "")
    name = cloud.names.group
    return Removal("resource group", name, keep_because, lambda: cloud.arm.resource_groups.begin_delete(name))
