"""Every route there is. Within one method and host, the first that fits answers, so the general come last.

Beside them, the shape in which each type of resource is answered.
"""

from collections.abc import Mapping

from azure_emulator import control
from azure_emulator.arm import (
    generic_resources,
    identities,
    operations,
    resource_groups,
    subscriptions,
    template_deployments,
)
from azure_emulator.client import login
from azure_emulator.endpoints import online_deployments, online_endpoints
from azure_emulator.flows import flow_runs, flows
from azure_emulator.front import front_end
from azure_emulator.front.answers import Shape
from azure_emulator.ml import assets, computes, connections, datastores, jobs, quota, workspaces
from azure_emulator.storage import blobs, file_shares, key_vaults, storage_accounts

FAMILIES = (
    login,
    control,
    blobs,
    file_shares,
    front_end,
    subscriptions,
    resource_groups,
    operations,
    identities,
    storage_accounts,
    key_vaults,
    template_deployments,
    workspaces,
    datastores,
    assets,
    computes,
    quota,
    flow_runs,
    flows,
    jobs,
    online_endpoints,
    online_deployments,
    connections,
    generic_resources,
)
ROUTES = [route for family in FAMILIES for route in family.ROUTES]
SHAPES: Mapping[str, Shape] = {
    kind.lower(): shape for family in FAMILIES for kind, shape in getattr(family, "SHAPES", {}).items()
}
