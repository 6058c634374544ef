"""What exists, which data made which model behind which traffic, what it costs by the hour, what expires."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from deploy.azure.shared.names import EXPIRES, is_ours
from deploy.azure.shared.serving import today
from deploy.azure.shared.session import Cloud
from deploy.azure.shared.sizes import dated, hourly
from phi3flow.core.console import table


@dataclass(frozen=True)
class Served:
    """One deployment: its share of the traffic, its lineage, and dollars an hour (None: not in the table)."""

    endpoint: str
    deployment: str
    traffic: int
    mirror: int
    state: str
    model: str
    data: str
    recipe: str
    size: str
    instances: int
    hourly: float | None
    expires: str


@dataclass(frozen=True)
class Cluster:
    """A training cluster; it costs only while nodes run."""

    name: str
    size: str
    nodes: int
    most: int
    hourly: float | None
    ours: bool


@dataclass(frozen=True)
class Status:
    """Everything of ours in the workspace, and what lies beside it in the resource group."""

    group: str | None
    workspace: str | None
    endpoints: list[str]
    served: list[Served]
    clusters: list[Cluster]
    jobs: list[dict[str, str]]
    resources: list[str]

    @property
    def dollars_an_hour(self) -> float:
        prices = [*(one.hourly for one in self.served), *(one.hourly for one in self.clusters)]
        return sum(price or 0.0 for price in prices)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "dollars_an_hour": round(self.dollars_an_hour, 3),
            "prices": f"estimate from list prices of {dated()}",
        }

    def __str__(self) -> str:
        if self.workspace is None:
            return "nothing exists yet\nnext: phi3flow azure provision --plan"
        header = ("deployment", "traffic", "state", "model", "data", "recipe", "size", "$/h", "expires")
        rows = [_row(one) for one in self.served]
        clusters = [
            f"cluster {one.name}: {one.nodes} of {one.most} nodes of {one.size} run" for one in self.clusters
        ]
        jobs = [f"job {one['name']}: {one['status']}" for one in self.jobs]
        total = f"now {self.dollars_an_hour:.2f} $ an hour (estimate, list prices of {dated()})"
        return "\n".join([*([table(header, rows)] if rows else []), *clusters, *jobs, total])


def _row(one: Served) -> tuple[str, ...]:
    traffic = f"{one.traffic} %" + (f" +{one.mirror} % mirror" if one.mirror else "")
    price = f"{one.hourly:.2f}" if one.hourly is not None else "?"
    late = " (expired)" if is_expired(one.expires) else ""
    place = f"{one.endpoint}/{one.deployment}"
    return (place, traffic, one.state, one.model, one.data, one.recipe, one.size, price, one.expires + late)


def is_expired(day: str) -> bool:
    return bool(day) and day < today().isoformat()


def status(cloud: Cloud) -> Status:
    """Reads only. Raises what the SDKs raise."""
    names = cloud.names
    group = cloud.read(names.group_id)
    workspace = cloud.read(names.workspace_id)
    if workspace is None:
        return Status(_whose(group), None, [], [], [], [], _resources(cloud) if group else [])
    listed = cloud.ml.online_endpoints.list()
    endpoints = [one for one in listed if is_ours(one.tags) or one.name == names.given.endpoint]
    return Status(
        _whose(group),
        _whose(workspace),
        [one.name for one in endpoints],
        [one for endpoint in endpoints for one in _served(cloud, endpoint)],
        list(_clusters(cloud)),
        list(_jobs(cloud)),
        _resources(cloud),
    )


def _whose(found: dict[str, Any] | None) -> str | None:
    if found is None:
        return None
    return "phi3flow's" if is_ours(found.get("tags")) else "somebody else's, used as it is"


def _served(cloud: Cloud, endpoint: Any) -> Iterator[Served]:
    for one in cloud.ml.online_deployments.list(endpoint.name):
        tags, size, count = one.tags or {}, str(one.instance_type), int(one.instance_count or 1)
        yield Served(
            endpoint.name,
            one.name,
            int(endpoint.traffic.get(one.name, 0)),
            int(endpoint.mirror_traffic.get(one.name, 0)),
            str(one.provisioning_state),
            tags.get("model", "?"),
            tags.get("data", "?"),
            tags.get("recipe", "?"),
            size,
            count,
            hourly(size, count),
            endpoint.tags.get(EXPIRES, ""),
        )


def _clusters(cloud: Cloud) -> Iterator[Cluster]:
    for one in cloud.ml.compute.list(compute_type="AMLCompute"):
        found = cloud.read(cloud.names.compute_id(one.name)) or {}
        shown = (found.get("properties") or {}).get("properties") or {}
        nodes, most = int(shown.get("currentNodeCount") or 0), int(one.max_instances or 0)
        size, ours = str(one.size), is_ours(found.get("tags"))
        yield Cluster(one.name, size, nodes, most, hourly(size, nodes), ours)


def _jobs(cloud: Cloud) -> Iterator[dict[str, str]]:
    for one in cloud.ml.jobs.list():
        if is_ours(one.tags):
            yield {"name": str(one.name), "status": str(one.status)}


def _resources(cloud: Cloud) -> list[str]:
    listed = cloud.arm.resources.list_by_resource_group(cloud.names.group)
    return sorted(f"{one.type}/{one.name}" for one in listed)
