"""Quota: cores that Azure ML may use in a region, of each family of sizes and of all together.

Azure lists each family twice, dedicated and low priority, by a sentence such as `Standard DSv2 Family Cluster
Dedicated vCPUs`, while the list of sizes says `standardDSv2Family`. A limit of -1 means that none is set.
"""

from dataclasses import dataclass
from typing import Any

from deploy.azure.shared.session import Cloud, if_allowed
from deploy.azure.shared.sizes import letters, reserved
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError

PAGE = "https://ml.azure.com/quota"
DEDICATED = letters("Cluster Dedicated vCPUs")
ALL_CORES = letters("Total Cluster Dedicated Regional vCPUs")


@dataclass(frozen=True)
class Quota:
    """Cores under one limit: None where Azure does not list it, -1 where none is set."""

    name: str
    size: str
    needed: int
    used: int
    limit: int | None

    @property
    def missing(self) -> int:
        if self.limit is None or self.limit < 0:
            return 0
        return max(self.used + self.needed - self.limit, 0)

    def __str__(self) -> str:
        needed = f"{self.name}: {self.needed} cores needed"
        if self.limit is None:
            return f"{needed}; Azure lists no such quota, so look at {PAGE}"
        if self.limit < 0:
            return f"{needed}, no limit is set"
        return f"{needed}, {self.limit - self.used} of {self.limit} free"


def quotas_for(cloud: Cloud, size: str, machines: int, *, deployments: int = 0) -> list[Quota]:
    """The limits that `machines` of `size` come under: the family's and that of all cores.

    With `deployments`, so many of these serve, and Azure reserves more for each. Raises Phi3flowError for a
    size that the region does not offer. Empty, said on stderr, where this login may not read quotas.
    """
    return (
        if_allowed(
            lambda: _quotas(cloud, size, machines, deployments=deployments),
            f"quota for {size}",
            f"look at {PAGE}",
        )
        or []
    )


def _quotas(cloud: Cloud, size: str, machines: int, *, deployments: int) -> list[Quota]:
    found = _size(cloud, size)
    family = str(found.family)
    counted = deployments * reserved(family, machines) if deployments else machines
    needed = int(found.v_cp_us) * counted
    usages = list(cloud.ml.compute.list_usage(location=cloud.names.region))

    def quota(name: str, *written: str) -> Quota:
        for usage in usages:
            told = str(usage.name.get("value", ""))
            if letters(told) in written:
                shown = str(usage.name.get("localized_value") or told)
                return Quota(shown, size, needed, int(usage.current_value or 0), int(usage.limit or 0))
        return Quota(name, size, needed, 0, None)

    of_family = quota(family, letters(family), letters(family) + DEDICATED)
    of_all = quota("all dedicated cores", ALL_CORES)
    return [of_family] if of_all.limit is None else [of_family, of_all]


def _size(cloud: Cloud, size: str) -> Any:
    region = cloud.names.region
    sizes = {found.name.lower(): found for found in cloud.ml.compute.list_sizes(location=region)}
    if size.lower() not in sizes:
        offered = ", ".join(sorted(one.name for one in sizes.values())[:8])
        raise Phi3flowError(
            f"{region} does not offer {size}", f"--size with one of: {offered} ...; or PHI3FLOW_AZURE_REGION"
        )
    return sizes[size.lower()]


def require_quota(quotas: list[Quota], region: str, instead: str) -> None:
    """Say each; raise Phi3flowError where cores are missing: how many, under which limit, where to ask.

    `instead` names what needs fewer cores.
    """
    for quota in quotas:
        say(f"quota: {quota}")
    for quota in quotas:
        if quota.missing:
            wanted = quota.used + quota.needed
            raise Phi3flowError(
                f"no quota for {quota.size} in {region}: {quota}, {quota.missing} missing",
                f"at {PAGE} choose {quota.name} in {region}, Request quota, new cores limit {wanted}; "
                f"or {instead}",
            )
