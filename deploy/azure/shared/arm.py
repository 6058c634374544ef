"""One ARM resource as a step: read by its id, compared with what is wanted, put where it is missing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud

Body = Mapping[str, Any]


@dataclass(frozen=True)
class ArmResource:
    """`body` is made when it is needed: it may hold what an earlier step creates.

    What exists without our tag was made by somebody else: it is used as it is, and never changed.
    """

    cloud: Cloud
    kind: str
    id: str
    api_version: str
    body: Callable[[], Body]
    cost: Cost = "free"
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.id.rsplit("/", 1)[1]

    def read(self) -> dict[str, Any] | None:
        return read(self.cloud, self.id, self.api_version)

    def look(self) -> Look:
        found = self.read()
        if found is None:
            return Look("create")
        if OURS not in (found.get("tags") or {}):
            return Look("keep", "not phi3flow's: used as it is")
        if state(found) == "failed":
            return Look("update", "its creation had failed")
        different = differences({"tags": self.tags, **self.body()}, found)
        return Look("update", ", ".join(different)) if different else Look("keep")

    def make(self) -> None:
        body = {"tags": dict(self.tags), **self.body()}
        poller = self.cloud.arm.resources.begin_create_or_update_by_id(
            self.id, dict(body), api_version=self.api_version
        )
        self.cloud.finish(poller, f"{self.kind} {self.name}")


def read(cloud: Cloud, resource_id: str, api_version: str) -> dict[str, Any] | None:
    """A resource as ARM shows it; None where it or its parent does not exist."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return dict(cloud.arm.resources.get_by_id(resource_id, api_version=api_version).as_dict())
    except ResourceNotFoundError:
        return None


def state(found: Mapping[str, Any]) -> str:
    return str((found.get("properties") or {}).get("provisioningState", "")).lower()


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Where Azure shows another value than the wanted one. What it does not show is not compared."""
    if isinstance(wanted, Mapping):
        shown = found if isinstance(found, Mapping) else {}
        return [
            text
            for name, value in wanted.items()
            if name in shown
            for text in differences(value, shown[name], f"{where}.{name}" if where else name)
        ]
    if found is None or isinstance(wanted, list):
        return []
    same = str(wanted).lower().replace(" ", "") == str(found).lower().replace(" ", "")
    return [] if same else [f"{where}: {found} -> {wanted}"]
