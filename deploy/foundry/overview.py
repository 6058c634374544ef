"""What is in the project, and taking it away again."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from deploy.azure.provision import WORKSPACE_API
from deploy.azure.steps.arm import read
from deploy.azure.steps.names import OURS
from deploy.azure.steps.problems import explaining
from deploy.foundry.connections import API, all_connections, connection_id, is_ours
from deploy.foundry.flows import archive, uploaded_flows
from deploy.foundry.project import hub_id, project_id
from deploy.foundry.target import Target
from phi3flow.core.console import say, table


class Removal(NamedTuple):
    """One line of the plan: `keep` for what is not ours."""

    do: Literal["delete", "archive", "keep"]
    kind: str
    name: str
    why: str = ""

    def __str__(self) -> str:
        told = f"  ({self.why})" if self.why else ""
        return f"{'=' if self.do == 'keep' else '-'} {self.do:7}  {self.kind} {self.name}{told}"


@dataclass(frozen=True)
class Listed:
    """A connection or a flow of the project; `where` is the endpoint's address or the flow's id."""

    kind: str
    name: str
    where: str
    ours: bool


def listing(target: Target) -> list[Listed]:
    """Reads only."""
    target.require()
    connections = [
        Listed("connection", str(one["name"]), _endpoint_of(one), is_ours(one))
        for one in all_connections(target.cloud)
    ]
    flows = [
        Listed("flow", str(one.display_name), str(one.name), ours=True) for one in uploaded_flows(target)
    ]
    return [*connections, *flows]


def as_table(found: list[Listed]) -> str:
    rows = [(one.kind, one.name, one.where, "" if one.ours else "not phi3flow's") for one in found]
    return table(("kind", "name", "endpoint or flow id", ""), rows)


def as_data(found: list[Listed]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


def _endpoint_of(connection: dict[str, Any]) -> str:
    return str((connection["properties"].get("metadata") or {}).get("endpoint", "?"))


def delete(target: Target, *, plan: bool) -> list[Removal]:
    """Flows are archived; connections, project and hub go, unless they are not ours. Raises Phi3flowError.

    An Azure ML workspace stays: `azure teardown` is for that.
    """
    removals = []
    for removal, remove in _tasks(target):
        removals.append(removal)
        if plan or removal.do == "keep":
            continue
        say(f"{removal.do} {removal.kind} {removal.name} ...")
        with explaining(f"{removal.kind} {removal.name}"):
            remove()
    return removals


def _tasks(target: Target) -> Iterator[tuple[Removal, Callable[[], Any]]]:
    cloud = target.cloud
    if read(cloud, target.id, WORKSPACE_API) is not None:
        for flow in uploaded_flows(target):
            removal = Removal("archive", "flow", str(flow.display_name))
            yield removal, partial(archive, target, str(flow.name))
        for one in all_connections(cloud):
            name, ours = str(one["name"]), is_ours(one)
            gone = connection_id(cloud, name)
            yield _removal("connection", name, ours), partial(_delete, target, gone, API)
    if target.is_project:
        yield from _containers(target)


def _containers(target: Target) -> Iterator[tuple[Removal, Callable[[], Any]]]:
    """The project before the hub that holds it."""
    for kind, resource_id in (
        ("project", project_id(target.endpoints)),
        ("hub", hub_id(target.endpoints)),
    ):
        found = read(target.cloud, resource_id, WORKSPACE_API)
        if found is not None:
            name = resource_id.rsplit("/", 1)[1]
            removal = _removal(kind, name, OURS in (found.get("tags") or {}))
            yield removal, partial(_delete, target, resource_id, WORKSPACE_API)


def _removal(kind: str, name: str, ours: bool) -> Removal:
    return Removal("delete", kind, name) if ours else Removal("keep", kind, name, "not phi3flow's")


def _delete(target: Target, resource_id: str, api: str) -> None:
    poller = target.cloud.arm.resources.begin_delete_by_id(resource_id, api_version=api)
    target.cloud.finish(poller, f"deleting {resource_id.rsplit('/', 1)[1]}")
