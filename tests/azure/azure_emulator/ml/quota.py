"""Sizes of virtual machines, and how many cores of each family the subscription may use."""

import math
from typing import NamedTuple

from azure_emulator.arm.ids import SUBSCRIPTION, managed
from azure_emulator.arm.services import ML
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request


class Size(NamedTuple):
    """`memory` in GB; prices are not the emulator's business."""

    family: str
    cores: int
    memory: float
    gpus: int = 0


SIZES = {
    "Standard_DS2_v2": Size("standardDSv2Family", 2, 7),
    "Standard_DS3_v2": Size("standardDSv2Family", 4, 14),
    "Standard_D4s_v3": Size("standardDSv3Family", 4, 16),
    "Standard_E4s_v3": Size("standardESv3Family", 4, 32),
    "Standard_E8s_v3": Size("standardESv3Family", 8, 64),
    "Standard_E16s_v3": Size("standardESv3Family", 16, 128),
    "Standard_F2s_v2": Size("standardFSv2Family", 2, 4),
    "Standard_F4s_v2": Size("standardFSv2Family", 4, 8),
    "Standard_F8s_v2": Size("standardFSv2Family", 8, 16),
    "Standard_NC6s_v3": Size("standardNCSv3Family", 6, 112, 1),
    "Standard_NC12s_v3": Size("standardNCSv3Family", 12, 224, 2),
    "Standard_NC4as_T4_v3": Size("standardNCASv3_T4Family", 4, 28, 1),
    "Standard_NC24ads_A100_v4": Size("standardNCADSA100v4Family", 24, 220, 1),
    "Standard_NC48ads_A100_v4": Size("standardNCADSA100v4Family", 48, 440, 2),
    "Standard_NC96ads_A100_v4": Size("standardNCADSA100v4Family", 96, 880, 4),
    "Standard_NC40ads_H100_v5": Size("standardNCADSH100v5Family", 40, 320, 1),
}
DEFAULT_CORES = 100
NO_LIMIT = -1
WITHOUT_RESERVE = {"standardNCADSA100v4Family", "standardNCADSH100v5Family"}
ALL_DEDICATED = "Total Cluster Dedicated Regional vCPUs"
ALL_LOW = "Total Cluster LowPriority Regional vCPUs"
PRICES = {
    "billingCurrency": "USD",
    "unitOfMeasure": "OneHour",
    "values": [{"retailPrice": 1.0, "osType": "Linux", "vmTier": "Standard"}],
}
_BY_NAME = {name.lower(): size for name, size in SIZES.items()}


def size_of(name: str | None) -> Size | None:
    """Letter case does not count."""
    return _BY_NAME.get((name or "").lower())


def limits(cloud: Cloud) -> dict[str, int]:
    families = dict.fromkeys((size.family for size in SIZES.values()), DEFAULT_CORES)
    return families | (cloud.store.read("settings", "quota") or {})


def set_limits(cloud: Cloud, cores: dict[str, int]) -> None:
    cloud.store.write("settings", "quota", (cloud.store.read("settings", "quota") or {}) | cores)


def used(cloud: Cloud, family: str) -> int:
    """Cores that deployments hold; clusters that are idle hold none."""
    deployments = cloud.store.below("", kind=f"{ML}/workspaces/onlineEndpoints/deployments")
    return sum(
        cores_of(item)
        for item in deployments
        if item["properties"].get("provisioningState") != "Failed" and family_of(item) == family
    )


def family_of(deployment: Document) -> str:
    size = size_of(deployment["properties"].get("instanceType"))
    return size.family if size else ""


def cores_of(deployment: Document) -> int:
    """With a fifth more machines for upgrades, which Azure reserves for all but the large GPU sizes."""
    size = size_of(deployment["properties"].get("instanceType"))
    if size is None:
        return 0
    machines = int((deployment.get("sku") or {}).get("capacity") or 1)
    reserved = machines if size.family in WITHOUT_RESERVE else math.ceil(1.2 * machines)
    return size.cores * reserved


def exceeded(cloud: Cloud, deployment: Document) -> str:
    """Why this deployment, which is in the store already, cannot have its cores; empty where it can."""
    family = family_of(deployment)
    total, limit = used(cloud, family), limits(cloud).get(family, 0)
    if not family or limit == NO_LIMIT or total <= limit:
        return ""
    wanted = cores_of(deployment)
    return (
        f"Not enough quota available for {deployment['properties']['instanceType']} in subscription. "
        f"Current usage/limit: {total - wanted}/{limit}. Additional needed: {wanted}. Family: {family}."
    )


def list_usages(cloud: Cloud, request: Request) -> Reply:
    """All cores, then each family twice: dedicated, and low priority without a limit of its own."""
    known = limits(cloud)
    taken = {family: used(cloud, family) for family in known}
    rows = [
        _row(request, "totalCores", "Clusters", 0, 500),
        _row(request, "dedicatedCores", ALL_DEDICATED, sum(taken.values()), _all(known)),
        *(_row(request, "vmFamily", _called(one, "Dedicated"), taken[one], known[one]) for one in known),
        _row(request, "lowPriorityCores", ALL_LOW, 0, DEFAULT_CORES),
        *(_row(request, "vmFamily", _called(one, "LowPriority"), 0, NO_LIMIT) for one in known),
    ]
    return Reply(200, {"value": rows})


def _all(known: dict[str, int]) -> int:
    return sum(limit for limit in known.values() if limit != NO_LIMIT)


def _called(family: str, priority: str) -> str:
    """The sentence in which a usage names a family, which the list of sizes writes as one word."""
    middle = family.removeprefix("standard").removesuffix("Family")
    return f"Standard {middle} Family Cluster {priority} vCPUs"


def _row(request: Request, kind: str, name: str, current: int, limit: int) -> Document:
    subscription = "/".join(request.path.split("/")[:3])
    own = f"/{name.replace(' ', '_')}" if kind == "vmFamily" else ""
    return {
        "id": f"{subscription}/usages{own}",
        "type": f"{ML}/{kind}/usages",
        "unit": "Count",
        "currentValue": current,
        "limit": limit,
        "name": {"value": name, "localizedValue": name},
    }


def list_sizes(cloud: Cloud, request: Request) -> Reply:
    return Reply(
        200,
        {
            "value": [
                {
                    "name": name,
                    "family": size.family,
                    "vCPUs": size.cores,
                    "gpus": size.gpus,
                    "memoryGB": size.memory,
                    "lowPriorityCapable": True,
                    "premiumIO": True,
                    "osVhdSizeMB": 1047552,
                    "maxResourceVolumeMB": int(size.memory * 1024) * 2,
                    "estimatedVMPrices": PRICES,
                    "supportedComputeTypes": ["AmlCompute", "ComputeInstance", "MIR"],
                }
                for name, size in SIZES.items()
            ]
        },
    )


LOCATION = f"{SUBSCRIPTION}/providers/{ML}/locations/{{location}}"
ROUTES = [
    managed("GET", f"{LOCATION}/usages", list_usages),
    managed("GET", f"{LOCATION}/vmSizes", list_sizes),
]
