"""Take away what carries our tag, the costliest first, and say what was left.

What has no tag was made by somebody else and stays, but for what Application Insights adds by itself. The
resource group goes only if it is ours and nothing else lies in it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from deploy.azure.provision import own_parts
from deploy.azure.shared.names import EXPIRES, is_ours
from deploy.azure.shared.plan import Action, Removal, carry_out, not_ours
from deploy.azure.shared.serving import VERIFIED
from deploy.azure.shared.session import API_VERSIONS, ML_WORKSPACES, Cloud
from deploy.azure.status import is_expired

INSIGHTS = "microsoft.insights/components"
ALERT_RULE = "microsoft.alertsmanagement/smartdetectoralertrules"
ACTION_GROUP = "microsoft.insights/actiongroups"
SMART_DETECTION = "application insights smart detection"
What = Literal["everything", "expired", "old"]


def teardown(cloud: Cloud, what: What, *, plan: bool) -> list[Action]:
    """Delete everything of ours, or only expired endpoints, or deployments without traffic.

    With `plan`, only say what. Raises Phi3flowError, which says what is left.
    """
    return carry_out(_removals(cloud, what), plan=plan)


def _removals(cloud: Cloud, what: What) -> list[Removal]:
    group = cloud.read(cloud.names.group_id)
    if group is None:
        return []
    removals = list(_in_workspace(cloud, what)) if cloud.read(cloud.names.workspace_id) else []
    if what != "everything":
        return removals
    listed = sorted(cloud.arm.resources.list_by_resource_group(cloud.names.group), key=_order)
    # Children, such as endpoints, are listed, too: they go with their workspace.
    listed = [one for one in listed if str(one.type).count("/") == 1]
    our_group = is_ours(group.get("tags"))
    resources = [
        _resource(cloud, one, _keep_because(cloud, one, listed, our_group=our_group)) for one in listed
    ]
    kept = sum(bool(one.keep_because) for one in resources)
    return [*removals, *resources, _group(cloud, group, kept)]


def _in_workspace(cloud: Cloud, what: What) -> Iterator[Removal]:
    for endpoint in cloud.ml.online_endpoints.list():
        if what != "old":
            yield _endpoint(cloud, endpoint, what)
        # Ours at an endpoint that stays: somebody else made it, and the settings named it.
        if what == "old" or (what == "everything" and not is_ours(endpoint.tags)):
            for one in cloud.ml.online_deployments.list(endpoint.name):
                yield _deployment(cloud, endpoint, one)
    if what == "everything":
        for one in cloud.ml.compute.list(compute_type="AMLCompute"):
            yield _cluster(cloud, one.name)


def _endpoint(cloud: Cloud, endpoint: Any, what: What) -> Removal:
    name, expires = endpoint.name, str((endpoint.tags or {}).get(EXPIRES, ""))
    keep_because = not_ours(endpoint.tags)
    if not keep_because and what == "expired" and not is_expired(expires):
        keep_because = f"expires {expires or 'never'}"
    return Removal(
        cloud, "endpoint", name, keep_because, lambda: cloud.ml.online_endpoints.begin_delete(name)
    )


def _deployment(cloud: Cloud, endpoint: Any, one: Any) -> Removal:
    """Kept where it takes traffic or waits for it."""
    traffic = {**endpoint.traffic, **endpoint.mirror_traffic}
    waits = (endpoint.tags or {}).get(VERIFIED) == one.name
    keep_because = not_ours(one.tags)
    if not keep_because and traffic.get(one.name):
        keep_because = "it takes traffic"
    if not keep_because and waits:
        keep_because = "it passed verify and waits for promote"
    delete = cloud.ml.online_deployments.begin_delete
    name = f"{endpoint.name}/{one.name}"
    return Removal(cloud, "deployment", name, keep_because, lambda: delete(one.name, endpoint.name))


def _cluster(cloud: Cloud, name: str) -> Removal:
    found = cloud.read(cloud.names.compute_id(name)) or {}
    keep_because = not_ours(found.get("tags"))
    return Removal(cloud, "cluster", name, keep_because, lambda: cloud.ml.compute.begin_delete(name))


def _order(resource: Any) -> tuple[int, bool, str]:
    """As in API_VERSIONS; a hub goes after its projects."""
    kinds, kind = list(API_VERSIONS), str(resource.type).lower()
    place = kinds.index(kind) if kind in kinds else len(kinds)
    return place, str(resource.kind).lower() == "hub", str(resource.name)


def _keep_because(cloud: Cloud, one: Any, listed: Sequence[Any], *, our_group: bool) -> str:
    """Application Insights makes an alert rule and an action group, without a tag; they outlive it."""
    kind, name = str(one.type).lower(), str(one.name).lower()
    insights = own_parts(cloud.names)["applicationInsights"].rsplit("/", 1)[1].lower()
    if kind == ALERT_RULE and name == f"failure anomalies - {insights}":
        return ""
    if kind == ACTION_GROUP and name == SMART_DETECTION and our_group:
        names = {str(other.name).lower() for other in listed if str(other.type).lower() == INSIGHTS}
        return "other insights use it" if names - {insights} else ""
    if is_ours(one.tags) and kind not in API_VERSIONS:
        return "of a kind that phi3flow does not make"
    return not_ours(one.tags)


def _resource(cloud: Cloud, one: Any, keep_because: str) -> Removal:
    kind = str(one.type).lower()

    def remove() -> Any:
        if kind == ML_WORKSPACES:
            return cloud.purge(one.name)
        return cloud.delete(one.id)

    return Removal(cloud, kind.rsplit("/", 1)[1], str(one.name), keep_because, remove)


def _group(cloud: Cloud, group: dict[str, Any], kept: int) -> Removal:
    keep_because = not_ours(group.get("tags")) or (f"{kept} resources in it stay" if kept else "")
    name = cloud.names.group
    delete = cloud.arm.resource_groups.begin_delete
    return Removal(cloud, "resource group", name, keep_because, lambda: delete(name))
