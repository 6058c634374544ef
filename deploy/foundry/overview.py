"""What is in the project, and taking it away again."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from deploy.azure.provision import WORKSPACE_API
from deploy.azure.shared.arm import read
from deploy.azure.shared.plan import NOT_OURS, Action, Removal, not_ours, take_away
from deploy.foundry.connections import API, all_connections, connection_id, is_ours
from deploy.foundry.flows import archive, uploaded_flows
from deploy.foundry.target import Target, hub_id, project_id
from phi3flow.core.console import table


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
    rows = [(one.kind, one.name, one.where, "" if one.ours else NOT_OURS) for one in found]
    return table(("kind", "name", "endpoint or flow id", ""), rows)


def as_data(found: list[Listed]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


def _endpoint_of(connection: dict[str, Any]) -> str:
    return str((connection["properties"].get("metadata") or {}).get("endpoint", "?"))


def delete(target: Target, *, plan: bool) -> list[Action]:
    """Archive the flows; delete connections, project and hub, unless they are not ours. Raises Phi3flowError.

    An Azure ML workspace stays: `azure teardown` deletes it.
    """
    return take_away(target.cloud, list(_removals(target)), plan=plan)


def _removals(target: Target) -> Iterator[Removal]:
    """The project goes before the hub that holds it."""
    if read(target.cloud, target.id, WORKSPACE_API) is not None:
        for flow in uploaded_flows(target):
            remove = partial(archive, target, str(flow.name))
            yield Removal("flow", str(flow.display_name), "", remove, do="archive")
        for one in all_connections(target.cloud):
            name = str(one["name"])
            remove = partial(_delete, target, connection_id(target.cloud, name), API)
            yield Removal("connection", name, "" if is_ours(one) else NOT_OURS, remove)
    if target.is_project:
        containers = {"project": project_id(target.endpoints), "hub": hub_id(target.endpoints)}
        for kind, resource_id in containers.items():
            found = read(target.cloud, resource_id, WORKSPACE_API)
            if found is not None:
                remove = partial(_delete, target, resource_id, WORKSPACE_API)
                yield Removal(kind, resource_id.rsplit("/", 1)[1], not_ours(found.get("tags")), remove)


def _delete(target: Target, resource_id: str, api: str) -> Any:
    return target.cloud.arm.resources.begin_delete_by_id(resource_id, api_version=api)
