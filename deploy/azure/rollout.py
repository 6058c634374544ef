"""Traffic: a verified deployment gets a share, all of it, or its old share back. Nothing is deleted here.

The endpoint's own tags say which deployment is verified, live and previous. They are written together with
the traffic in one request, so an interruption leaves both as they were or both as they should be.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.azure.shared.names import is_ours
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.serving import VERIFIED, find_deployment, find_endpoint, put_endpoint, settled
from deploy.azure.shared.session import Cloud
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.lineage import read_manifest

CANARY, MIRRORED = 10, 10
HOLD = {"hold": 3, "not_enough_data": 4}


class Held(Phi3flowError):
    """The comparison does not say promote."""

    exit_code = 3


def require_promotion(report: Path, verified: Path) -> None:
    """Raises Held unless the comparison's verdict is promote; BadInput where there is no comparison.

    A comparison older than the findings in `verified` is rejected: it may describe an earlier deployment.
    """
    if not report.is_file():
        raise BadInput(
            f"{report}: no comparison yet",
            f"phi3flow compare --data TEST.jsonl --base phi3-base --tuned phi3-tuned --out {report.parent}",
        )
    found = read_json(report)
    if found.get("verdict") != "promote":
        reasons = "; ".join(found.get("reasons", []))
        held = Held(
            f"{report}: the verdict is {found.get('verdict')}" + (f": {reasons}" if reasons else ""),
            "train on more or other data, and compare again",
        )
        held.exit_code = HOLD.get(str(found.get("verdict")), Held.exit_code)
        raise held
    compared = (read_manifest(report.parent) or {}).get("created", "")
    if verified.is_file() and compared and compared < read_json(verified)["created"]:
        raise Held(f"{report} is older than the deployment: it compares another model", "compare again")


def require_endpoint(cloud: Cloud, name: str) -> Any:
    found = settled(cloud, lambda: find_endpoint(cloud, name), f"endpoint {name}")
    if found is None or not (is_ours(found.tags) or name == cloud.names.given.endpoint):
        raise BadInput(f"there is no endpoint {name} of ours", "phi3flow azure deploy makes it")
    return found


def mark_verified(cloud: Cloud, endpoint: str, deployment: str, *, live: bool) -> Any:
    """Remember that a deployment passed; with `live` it also takes the traffic. Returns the endpoint."""
    found = require_endpoint(cloud, endpoint)
    found.tags = {**found.tags, VERIFIED: deployment}
    if live:
        found.traffic = {deployment: 100}
        found.tags["live"] = deployment
    put_endpoint(cloud, found)
    return found


@dataclass(frozen=True)
class Traffic:
    """The wanted shares as a step."""

    cloud: Cloud
    endpoint: str
    traffic: dict[str, int]
    mirror: dict[str, int]
    tags: dict[str, str]
    kind: str = "traffic"
    cost: Cost = "free"

    @property
    def name(self) -> str:
        shares = [f"{name} {share} %" for name, share in self.traffic.items()]
        return f"{self.endpoint}: " + ", ".join([*shares, *(f"mirrored to {name}" for name in self.mirror)])

    def look(self) -> Look:
        found = require_endpoint(self.cloud, self.endpoint)
        same = (
            _shares(found.traffic) == self.traffic
            and _shares(found.mirror_traffic) == self.mirror
            and all(found.tags.get(name) == value for name, value in self.tags.items())
        )
        return Look("keep") if same else Look("update", f"now {_shares(found.traffic) or 'nothing'}")

    def make(self) -> None:
        found = require_endpoint(self.cloud, self.endpoint)
        found.traffic, found.mirror_traffic = dict(self.traffic), dict(self.mirror)
        found.tags = {**found.tags, **self.tags}
        put_endpoint(self.cloud, found)


def _shares(traffic: dict[str, int]) -> dict[str, int]:
    return {name: int(share) for name, share in traffic.items() if int(share)}


def promotion(cloud: Cloud, endpoint: str, share: str) -> Traffic:
    """Give the verified deployment 10 %, a mirror of 10 %, or everything. Raises BadInput."""
    tags = require_endpoint(cloud, endpoint).tags
    candidate, live = tags.get(VERIFIED), tags.get("live")
    if not candidate:
        raise BadInput(f"no deployment of {endpoint} passed verify", "phi3flow azure deploy")
    if candidate == live:
        return Traffic(cloud, endpoint, {candidate: 100}, {}, {})
    if share == "100":
        previous = {"previous": live} if live else {}
        return Traffic(cloud, endpoint, {candidate: 100}, {}, {"live": candidate, **previous})
    if not live:
        raise BadInput(
            f"{endpoint} has no live deployment to share with", "phi3flow azure promote --traffic 100"
        )
    if share == "mirror":
        return Traffic(cloud, endpoint, {live: 100}, {candidate: MIRRORED}, {})
    return Traffic(cloud, endpoint, {live: 100 - CANARY, candidate: CANARY}, {}, {})


def reversal(cloud: Cloud, endpoint: str) -> Traffic:
    """Back to what was live: before the last promotion, or before a share or mirror was given."""
    found = require_endpoint(cloud, endpoint)
    live, previous = found.tags.get("live"), found.tags.get("previous")
    shared = bool(_shares(found.mirror_traffic)) or len(_shares(found.traffic)) > 1
    target = live if shared else previous
    if not target or find_deployment(cloud, endpoint, target) is None:
        raise BadInput(f"{endpoint} has no earlier deployment", "phi3flow azure status shows what there is")
    return Traffic(cloud, endpoint, {target: 100}, {}, {"live": target})
