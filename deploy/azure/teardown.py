"""Take away what carries our tag, the costliest first, and say what was left.

What has no tag was made by somebody else and stays. The resource group goes only if it is ours and nothing
else lies in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from deploy.azure.provision import GROUP_API, IDENTITY_API, WORKSPACE_API
from deploy.azure.status import is_expired
from deploy.azure.steps.arm import read
from deploy.azure.steps.names import EXPIRES, OURS
from deploy.azure.steps.problems import explaining
from deploy.azure.steps.serving import of_ours
from deploy.azure.steps.session import Cloud
from phi3flow.core.console import say

What = Literal["everything", "expired", "old"]
# What must go before what: a workspace holds its endpoints, and stands on its storage.
LAST = ("workspaces", "userassignedidentities", "components", "registries", "vaults", "storageaccounts")
API_OF = {
    "microsoft.machinelearningservices/workspaces": WORKSPACE_API,
    "microsoft.managedidentity/userassignedidentities": IDENTITY_API,
    "microsoft.insights/components": "2020-02-02",
    "microsoft.containerregistry/registries": "2023-07-01",
    "microsoft.keyvault/vaults": "2023-07-01",
    "microsoft.storage/storageaccounts": "2023-04-01",
    "microsoft.operationalinsights/workspaces": "2022-10-01",
}


class Removal(NamedTuple):
    """One line of the plan: `keep` for what is not ours, with the reason."""

    do: Literal["delete", "keep"]
    kind: str
    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{'-' if self.do == 'delete' else '='} {self.do:6}  {self.kind} {self.name}" + (
            f"  ({self.why})" if self.why else ""
        )


@dataclass(frozen=True)
class _Task:
    removal: Removal
    remove: Callable[[], Any]


def teardown(cloud: Cloud, what: What, *, plan: bool) -> list[Removal]:
    """Delete; with `plan` only say what. Raises Phi3flowError with what is gone already."""
    with explaining("teardown"):
        tasks = _tasks(cloud, what)
    for number, task in enumerate(tasks):
        if plan or task.removal.do == "keep":
            continue
        say(f"delete {task.removal.kind} {task.removal.name} ...")
        left = [f"{one.removal.kind} {one.removal.name}" for one in tasks[number:]]
        with explaining(f"{task.removal.kind} {task.removal.name}", left):
            _gone(cloud, task)
    return [task.removal for task in tasks]


def _gone(cloud: Cloud, task: _Task) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        poller = task.remove()
        if poller is not None:
            cloud.finish(poller, f"deleting {task.removal.name}")
    except ResourceNotFoundError:  # gone with something else, or by an interrupted run
        pass


def _tasks(cloud: Cloud, what: What) -> list[_Task]:
    group = read(cloud, cloud.names.group_id, GROUP_API)
    if group is None:
        return []
    workspace = read(cloud, cloud.names.workspace_id, WORKSPACE_API)
    tasks = _in_workspace(cloud, what) if workspace else []
    if what != "everything":
        return tasks
    resources = _resources(cloud)
    tasks += resources
    foreign = [task for task in resources if task.removal.do == "keep"]
    return [*tasks, _group(cloud, group, len(foreign))]


def _in_workspace(cloud: Cloud, what: What) -> list[_Task]:
    tasks = []
    for endpoint in cloud.ml.online_endpoints.list():
        tasks += _old(cloud, endpoint) if what == "old" else [_endpoint(cloud, endpoint, what)]
    if what == "everything":
        tasks += [_cluster(cloud, one.name) for one in cloud.ml.compute.list(compute_type="AMLCompute")]
    return tasks


def _endpoint(cloud: Cloud, endpoint: Any, what: What) -> _Task:
    operations, tags = cloud.ml.online_endpoints, endpoint.tags or {}
    expires = str(tags.get(EXPIRES, ""))
    reason = _not_ours(tags) or (
        f"expires {expires or 'never'}" if what == "expired" and not is_expired(expires) else ""
    )
    return _task("endpoint", endpoint.name, reason, lambda: operations.begin_delete(endpoint.name))


def _old(cloud: Cloud, endpoint: Any) -> list[_Task]:
    """The deployments of ours that take no traffic and have none to come."""
    return [_old_deployment(cloud, endpoint, one) for one in cloud.ml.online_deployments.list(endpoint.name)]


def _old_deployment(cloud: Cloud, endpoint: Any, one: Any) -> _Task:
    traffic = {**(endpoint.traffic or {}), **(endpoint.mirror_traffic or {})}
    waits = of_ours(endpoint) and (endpoint.tags or {}).get("verified") == one.name
    reason = _not_ours(one.tags or {})
    if not reason and traffic.get(one.name):
        reason = "it takes traffic"
    if not reason and waits:
        reason = "it passed verify and waits for promote"

    def remove() -> Any:
        return cloud.ml.online_deployments.begin_delete(one.name, endpoint.name)

    return _task("deployment", f"{endpoint.name}/{one.name}", reason, remove)


def _cluster(cloud: Cloud, name: str) -> _Task:
    found = read(cloud, cloud.names.compute_id(name), WORKSPACE_API) or {}
    reason = _not_ours(found.get("tags") or {})
    return _task("cluster", name, reason, lambda: cloud.ml.compute.begin_delete(name))


def _resources(cloud: Cloud) -> list[_Task]:
    listed = list(cloud.arm.resources.list_by_resource_group(cloud.names.group))
    return [_resource(cloud, one) for one in sorted(listed, key=_order)]


def _order(resource: Any) -> tuple[int, bool, str]:
    """A hub goes after its projects."""
    last = str(resource.type).lower().rsplit("/", 1)[1]
    ml = str(resource.type).lower().startswith("microsoft.machinelearningservices")
    return (
        LAST.index(last) if last in LAST and (ml or last != "workspaces") else len(LAST),
        str(resource.kind).lower() == "hub",
        str(resource.name),
    )


def _resource(cloud: Cloud, one: Any) -> _Task:
    kind = str(one.type).lower()
    reason = _not_ours(one.tags or {})
    if not reason and kind not in API_OF:
        reason = "of a kind that phi3flow does not make"

    def remove() -> Any:
        if kind == "microsoft.machinelearningservices/workspaces":
            return cloud.ml.workspaces.begin_delete(
                one.name, delete_dependent_resources=False, permanently_delete=True
            )
        return cloud.arm.resources.begin_delete_by_id(one.id, api_version=API_OF[kind])

    return _task(kind.rsplit("/", 1)[1], str(one.name), reason, remove)


def _group(cloud: Cloud, group: dict[str, Any], foreign: int) -> _Task:
    reason = _not_ours(group.get("tags") or {}) or (f"{foreign} resources in it stay" if foreign else "")
    return _task(
        "resource group",
        cloud.names.group,
        reason,
        lambda: cloud.arm.resource_groups.begin_delete(cloud.names.group),
    )


def _not_ours(tags: Any) -> str:
    return "" if OURS in tags else "not phi3flow's"


def _task(kind: str, name: str, reason: str, remove: Callable[[], Any]) -> _Task:
    return _Task(Removal("keep" if reason else "delete", kind, name, reason), remove)
