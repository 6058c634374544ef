"""Versioned things in the workspace, named by the hash of their content: uploaded once, found ever after."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.azure.steps.plan import Cost, Look
from deploy.azure.steps.session import Cloud
from phi3flow.core.lineage import sha256_of

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04:latest"
VERSION_LENGTH = 16


def version_of(*contents: str) -> str:
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:VERSION_LENGTH]


def exists(operations: Any, name: str, version: str) -> bool:
    """Whether a version stands in the workspace; the workspace itself may be missing, too."""
    return found(operations, name, version) is not None


def found(operations: Any, name: str, version: str) -> Any | None:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return operations.get(name, version)
    except ResourceNotFoundError:
        return None


@dataclass(frozen=True)
class TrainingEnvironment:
    """The image and packages that training jobs run in; Azure builds it at the first job."""

    cloud: Cloud
    image: str
    conda_file: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "environment"
    cost: Cost = "free"
    asset: str = "phi3flow-train"

    @property
    def version(self) -> str:
        return version_of(self.image, self.conda_file.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        return f"{self.asset}:{self.version}"

    def look(self) -> Look:
        return Look("keep" if exists(self.cloud.ml.environments, self.asset, self.version) else "create")

    def make(self) -> None:
        from azure.ai.ml.entities import Environment

        self.cloud.ml.environments.create_or_update(
            Environment(
                name=self.asset,
                version=self.version,
                image=self.image,
                conda_file=str(self.conda_file),
                tags=dict(self.tags),
            )
        )


@dataclass(frozen=True)
class DataAsset:
    """A folder of training data."""

    cloud: Cloud
    folder: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "data"
    cost: Cost = "by the month"
    asset: str = "phi3flow-data"

    @property
    def version(self) -> str:
        return sha256_of(self.folder)[:VERSION_LENGTH]

    @property
    def name(self) -> str:
        return f"{self.asset}:{self.version}"

    def look(self) -> Look:
        return Look("keep" if exists(self.cloud.ml.data, self.asset, self.version) else "create")

    def make(self) -> None:
        from azure.ai.ml.entities import Data

        self.cloud.ml.data.create_or_update(
            Data(
                name=self.asset,
                version=self.version,
                type="uri_folder",
                path=str(self.folder),
                tags=dict(self.tags),
            )
        )


@dataclass(frozen=True)
class ModelAsset:
    """A registered model: from a folder here, or from a job's output (`path` is then an azureml:// URI)."""

    cloud: Cloud
    asset: str
    version: str
    path: str
    type: str
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "model"
    cost: Cost = "by the month"

    @property
    def name(self) -> str:
        return f"{self.asset}:{self.version}"

    def look(self) -> Look:
        return Look("keep" if exists(self.cloud.ml.models, self.asset, self.version) else "create")

    def make(self) -> None:
        from azure.ai.ml.entities import Model

        self.cloud.ml.models.create_or_update(
            Model(name=self.asset, version=self.version, path=self.path, type=self.type, tags=dict(self.tags))
        )
