"""What is uploaded: copies of our code and of data, and versioned assets of the workspace.

An asset's version is the hash of its content: uploaded once, found again.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud, existing
from deploy.azure.shared.sizes import Profile
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of

# By version: an environment's own version is a hash of what is in it, which `latest` would belie.
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20260715.v1"
GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04:20260715.v1"
VERSION_LENGTH = 16
# The packages lie side by side, in a checkout and where pip installs them. The page (ui) stays here.
_ROOT = Path(__file__).parents[3]
PACKAGES: Mapping[str, Path] = {
    name: _ROOT / name
    for name in ("phi3flow", "training", "deploy", "custom_connections", "flows", "evaluation")
}


@contextmanager
def staged(sources: Mapping[str, Path]) -> Iterator[Path]:
    """A temporary folder with a copy of each source under its name, without caches and hidden files.

    Equal sources give an equal `sha256_of`, which names uploads and jobs: Azure keeps one copy, and a rerun
    finds its own job.
    """
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as temporary:
        folder = Path(temporary)
        for name, source in sources.items():
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copyfile(source, folder / name)
        yield folder


def version_of(*contents: str) -> str:
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:VERSION_LENGTH]


@dataclass(frozen=True)
class Asset:
    """One version as a step; `content` is what its SDK entity takes beside name, version and tags."""

    cloud: Cloud
    kind: Literal["environment", "data", "model"]
    asset: str
    version: str
    tags: Mapping[str, str]
    content: Mapping[str, str]
    cost: Cost = "by the month"

    @property
    def name(self) -> str:
        return f"{self.asset}:{self.version}"

    @property
    def as_input(self) -> tuple[str, str]:
        """Type and address, for a job that reads it."""
        return self.content["type"], f"azureml:{self.name}"

    @property
    def _operations(self) -> Any:
        ml = self.cloud.ml
        return {"environment": ml.environments, "data": ml.data, "model": ml.models}[self.kind]

    def look(self) -> Look:
        found = existing(self._operations.get, self.asset, self.version)
        return Look("create" if found is None else "keep")

    def make(self) -> None:
        from azure.ai.ml.entities import Data, Environment, Model

        entity = {"environment": Environment, "data": Data, "model": Model}[self.kind]
        made = entity(name=self.asset, version=self.version, tags=dict(self.tags), **self.content)
        self._operations.create_or_update(made)


def has_gpu(cloud: Cloud, compute: str) -> bool:
    """Our clusters are named after their profile; of an existing one the size is looked up."""
    if not cloud.names.given.compute:
        return compute.startswith("gpu")
    found = cloud.read(cloud.names.compute_id(compute)) or {}
    size = ((found.get("properties") or {}).get("properties") or {}).get("vmSize") or ""
    return Profile(compute, str(size)).gpu


def training_environment(cloud: Cloud, compute: str, verb: str) -> Asset:
    """The image and packages that jobs run in on the cluster `compute`; Azure builds it at the first job."""
    if given := cloud.names.given.environment:
        return _given_environment(cloud, given)
    image = GPU_IMAGE if has_gpu(cloud, compute) else IMAGE
    conda = Path(str(files("deploy.azure.container") / "environment-train.yaml"))
    version = version_of(image, conda.read_text(encoding="utf-8"))
    content = {"image": image, "conda_file": str(conda)}
    return Asset(cloud, "environment", "phi3flow-train", version, {OURS: verb}, content, "free")


def _given_environment(cloud: Cloud, given: str) -> Asset:
    """One that somebody made. Raises BadInput where it does not exist."""
    name, _, version = given.partition(":")
    found = Asset(cloud, "environment", name, version, {}, {}, "free")
    if not version or found.look().do == "create":
        raise BadInput(
            f"there is no environment {given} in {cloud.names.workspace}",
            "PHI3FLOW_AZURE_ENVIRONMENT=NAME:VERSION, as the studio shows it",
        )
    return found


def data_asset(cloud: Cloud, folder: Path, tags: Mapping[str, str]) -> Asset:
    """A folder of training data."""
    content = {"type": "uri_folder", "path": str(folder)}
    return Asset(cloud, "data", "phi3flow-data", sha256_of(folder)[:VERSION_LENGTH], tags, content)


def model_asset(
    cloud: Cloud, name: str, version: str, path: str, *, kind: str, tags: Mapping[str, str]
) -> Asset:
    """A model to register. `path` is a folder here or an azureml:// URI of a job's output."""
    return Asset(cloud, "model", name, version, tags, {"type": kind, "path": path})
