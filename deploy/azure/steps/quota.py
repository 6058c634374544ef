"""Is there quota for the cluster? Asking for more stays with the person: the family and cores are named."""

from dataclasses import dataclass

from deploy.azure.steps.session import Cloud
from phi3flow.core.errors import Phi3flowError

WHERE = "https://ml.azure.com/quota"


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


def quota_for(cloud: Cloud, size: str, nodes: int) -> Quota | None:
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


def require(quota: Quota | None, region: str) -> None:
    """Raises Phi3flowError where cores are missing, naming how many, of what, and where to ask."""
    if quota is None or not quota.missing:
        return
    wanted = quota.used + quota.needed
    raise Phi3flowError(
        f"no quota for {quota.size} in {region}: {quota}, {quota.missing} missing",
        f"at {WHERE} choose {quota.family} in {region}, Request quota, new cores limit {wanted}; "
        "or --profile cpu, or fewer --nodes",
    )
