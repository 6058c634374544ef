"""What is in the project, and taking it away again."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from deploy.azure.shared.names import is_ours
from deploy.azure.shared.plan import Removal, not_ours
from deploy.foundry.connections import all_connections, tags_of
from deploy.foundry.flows import archive, uploaded_flows
from deploy.foundry.target import Target


class Listed(NamedTuple):
    """A connection or a flow of the project; `where` is the endpoint's address or the flow's id."""

    kind: str
    name: str
    where: str
    ours: bool


def listing(target: Target) -> list[Listed]:
    """Reads only."""
    target.require()
    connections = [
        Listed("connection", str(one["name"]), tags_of(one).get("endpoint", "?"), is_ours(tags_of(one)))
        for one in all_connections(target.cloud)
    ]
    flows = [
        Listed("flow", str(one.display_name), str(one.name), ours=True) for one in uploaded_flows(target)
    ]
    return [*connections, *flows]


def removals(target: Target) -> Iterator[Removal]:
    """Archive the flows; delete connections, project and hub, unless they are not ours.

    The project goes before the hub that holds it, and both for good, so that `foundry create` can have the
    names again. An Azure ML workspace stays: `azure teardown` deletes it.
    """
    cloud, names = target.cloud, target.endpoints.names
    if cloud.read(target.id) is not None:
        for flow in uploaded_flows(target):
            remove = partial(archive, target, str(flow.name))
            yield Removal(cloud, "flow", str(flow.display_name), "", remove, do="archive")
        for one in all_connections(cloud):
            remove = partial(cloud.delete, one["id"])
            yield Removal(cloud, "connection", one["name"], not_ours(tags_of(one)), remove)
    if target.is_project:
        for kind, resource_id in {"project": names.project_id, "hub": names.hub_id}.items():
            found = cloud.read(resource_id)
            if found is not None:
                remove = partial(cloud.purge, str(found["name"]))
                yield Removal(cloud, kind, found["name"], not_ours(found.get("tags")), remove)
