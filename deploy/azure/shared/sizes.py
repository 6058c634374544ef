"""Machine sizes: what each is for, its price by the hour (a packaged, dated table), and its quota."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from phi3flow.core.errors import BadInput, Phi3flowError, nearest

if TYPE_CHECKING:
    from deploy.azure.shared.session import Cloud

SIZE = re.compile(r"(?:Standard|Basic)_(?P<machine>[a-z]+\d+[\w-]*)", re.IGNORECASE)
LONGEST_MACHINE = 20  # of a cluster's name, which has at most 24 characters
QUOTA_PAGE = "https://ml.azure.com/quota"


@dataclass(frozen=True)
class Profile:
    """A training cluster: its name in the workspace and its size."""

    compute: str
    size: str


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("deploy.azure.shared") / "sizes.toml").read_text(encoding="utf-8"))


def dated() -> str:
    """The day of the price list."""
    return str(_table()["dated"])


def hourly(size: str, machines: int = 1) -> float | None:
    """Dollars an hour; None where the table does not list the size."""
    prices = {name.lower(): price for name, price in _table()["hourly"].items()}
    price = prices.get(size.lower())
    return None if price is None else price * machines


def profile_for(name: str, size: str | None = None, nodes: int = 1) -> Profile:
    """The cluster of profile `gpu` or `cpu`, or one like it of another `size`.

    Raises BadInput for an unknown profile, what is no machine size, and fewer than one node.
    """
    known = _table()["profile"]
    if name not in known:
        raise BadInput(f"--profile: unknown '{name}'", nearest(name, known))
    if nodes < 1:
        raise BadInput("--nodes: must be at least 1", "--nodes 1")
    if not size:
        return Profile(**known[name])
    machine = _machine_of(size).partition("_")[0].lower()
    return Profile(f"{name}-{machine[:LONGEST_MACHINE]}", size)


def serving_size(engine: str, size: str | None = None) -> str:
    """The size that `openvino` or `vllm` is deployed on, unless another is given. Raises BadInput."""
    if size:
        _machine_of(size)
    return size or str(_table()["engine"][engine])


def _machine_of(size: str) -> str:
    found = SIZE.fullmatch(size)
    if found is None:
        raise BadInput(
            f"--size: '{size}' is no machine size; sizes look like Standard_NC24ads_A100_v4",
            f"{nearest(size, _table()['hourly'])}; for all: az vm list-skus --location REGION -o table",
        )
    return found["machine"]


@dataclass(frozen=True)
class Quota:
    """Cores of one family of machine sizes in the region."""

    family: str
    size: str
    needed: int
    used: int
    limit: int

    @property
    def missing(self) -> int:
        return max(self.used + self.needed - self.limit, 0)

    def __str__(self) -> str:
        return f"{self.family}: {self.needed} cores needed, {self.limit - self.used} of {self.limit} free"


def quota_for(cloud: "Cloud", size: str, nodes: int) -> Quota | None:
    """What `nodes` machines of `size` need; None where Azure names no quota for their family.

    Raises Phi3flowError for a size that the region does not offer.
    """
    region = cloud.names.region
    sizes = {found.name.lower(): found for found in cloud.ml.compute.list_sizes(location=region)}
    found = sizes.get(size.lower())
    if found is None:
        offered = ", ".join(sorted(one.name for one in sizes.values())[:8])
        raise Phi3flowError(
            f"{region} does not offer {size}", f"--size with one of: {offered} ...; or PHI3FLOW_AZURE_REGION"
        )
    needed = int(found.v_cp_us) * nodes
    for usage in cloud.ml.compute.list_usage(location=region):
        if str(usage.name.get("value", "")).lower() == str(found.family).lower():
            shown = usage.name.get("localized_value") or usage.name["value"]
            return Quota(str(shown), size, needed, int(usage.current_value or 0), int(usage.limit or 0))
    return None


def require_quota(quota: Quota | None, region: str) -> None:
    """Raises Phi3flowError where cores are missing: how many, of which family, and where to ask for them."""
    if quota is None or not quota.missing:
        return
    wanted = quota.used + quota.needed
    raise Phi3flowError(
        f"no quota for {quota.size} in {region}: {quota}, {quota.missing} missing",
        f"at {QUOTA_PAGE} choose {quota.family} in {region}, Request quota, new cores limit {wanted}; "
        "or --profile cpu, or fewer --nodes",
    )
