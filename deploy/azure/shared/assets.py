"""Versioned assets of the workspace. A version is the hash of its content: uploaded once, found again."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud
from phi3flow.core.lineage import sha256_of

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04:latest"
VERSION_LENGTH = 16


def version_of(*contents: str) -> str:
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:VERSION_LENGTH]


@dataclass(frozen=True)
class Asset:
    """One version as a step; `entity` makes the SDK's object for it. `type` is a model's."""

    cloud: Cloud
    kind: Literal["environment", "data", "model"]
    asset: str
    version: str
    entity: Callable[..., Any] = field(repr=False)
    tags: Mapping[str, str]
    cost: Cost = "by the month"
    type: str = ""

    @property
    def name(self) -> str:
        return f"{self.asset}:{self.version}"

    @property
    def _operations(self) -> Any:
        ml = self.cloud.ml
        return {"environment": ml.environments, "data": ml.data, "model": ml.models}[self.kind]

    def look(self) -> Look:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            self._operations.get(self.asset, self.version)
        except ResourceNotFoundError:  # the workspace itself may be missing, too
            return Look("create")
        return Look("keep")

    def make(self) -> None:
        made = self.entity(name=self.asset, version=self.version, tags=dict(self.tags))
        self._operations.create_or_update(made)


def training_environment(cloud: Cloud, compute: str, verb: str) -> Asset:
    """The image and packages that jobs run in on the cluster `compute`; Azure builds it at the first job."""
    image = GPU_IMAGE if compute.startswith("gpu") else IMAGE
    conda = Path(str(files("deploy.azure.container") / "environment-train.yaml"))
    version = version_of(image, conda.read_text(encoding="utf-8"))

    def entity(**named: Any) -> Any:
        from azure.ai.ml.entities import Environment

        return Environment(image=image, conda_file=str(conda), **named)

    return Asset(cloud, "environment", "phi3flow-train", version, entity, {OURS: verb}, "free")


def data_asset(cloud: Cloud, folder: Path, tags: Mapping[str, str]) -> Asset:
    """A folder of training data."""

    def entity(**named: Any) -> Any:
        from azure.ai.ml.entities import Data

        return Data(type="uri_folder", path=str(folder), **named)

    return Asset(cloud, "data", "phi3flow-data", sha256_of(folder)[:VERSION_LENGTH], entity, tags)


def model_asset(
    cloud: Cloud, name: str, version: str, path: str, *, kind: str, tags: Mapping[str, str]
) -> Asset:
    """A model to register. `path` is a folder here or an azureml:// URI of a job's output."""

    def entity(**named: Any) -> Any:
        from azure.ai.ml.entities import Model

        return Model(path=path, type=kind, **named)

    return Asset(cloud, "model", name, version, entity, tags, type=kind)
