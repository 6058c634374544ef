"""The two jobs behind `foundry finetune`: the catalog's own, and the one that has its models answer."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from deploy.azure.steps.assets import (
    GPU_IMAGE,
    IMAGE,
    VERSION_LENGTH,
    ModelAsset,
    TrainingEnvironment,
    version_of,
)
from deploy.azure.steps.job import Job
from deploy.azure.steps.names import OURS
from deploy.azure.steps.session import Cloud
from deploy.azure.steps.sizes import Profile
from deploy.azure.train import EXPERIMENT, INSTALL, SPLITS
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import commit, sha256_of

MODEL = re.compile(r"(?P<name>Phi-(?:3|3\.5|4)-mini-[\w-]*instruct):(?P<version>\d+)")
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
OUTPUT = "phi3-catalog"
CARD_LINE = (
    f"{INSTALL} && python -m deploy.foundry.catalog_card "
    "${{inputs.tuned}} ${{inputs.base}} ${{inputs.validation}} "
    "${{outputs.model}} ${{outputs.base}} ${{outputs.card}}"
)


@dataclass(frozen=True)
class CatalogTraining:
    """What is asked for: a catalog model by name and version, and the settings that the portal offers."""

    data: Path
    model: str
    learning_rate: float
    scheduler: str
    epochs: int
    profile: Profile

    @cached_property
    def asset(self) -> str:
        """The model's address in the catalog. Raises BadInput for what is no Phi mini of a pinned version."""
        found = MODEL.fullmatch(self.model)
        if found is None:
            raise BadInput(
                f"{self.model}: not a Phi mini of the catalog with its version",
                "--model Phi-3-mini-4k-instruct:VERSION; the model's page in the catalog shows the version",
            )
        return f"azureml://registries/azureml/models/{found['name']}/versions/{found['version']}"

    @property
    def hyperparameters(self) -> dict[str, str]:
        """As the catalog's component calls them; every value is text."""
        return {
            "learning_rate": f"{self.learning_rate:g}",
            "lr_scheduler_type": self.scheduler,
            "num_train_epochs": str(self.epochs),
        }

    @cached_property
    def tags(self) -> dict[str, str]:
        return {
            OURS: "finetune",
            "data": sha256_of(self.data / SPLITS[0])[:VERSION_LENGTH],
            "recipe": "catalog",
            "base": self.model,
            "commit": commit() or "",
            **self.hyperparameters,
        }


@dataclass(frozen=True)
class Staged:
    """The rows without their labels, and the folder of the second job's code."""

    train: Path
    validation: Path
    code: Path

    @property
    def content(self) -> str:
        return version_of(sha256_of(self.train), sha256_of(self.validation))


@contextmanager
def staged_for(asked: CatalogTraining, wheel: Callable[[Path], Path]) -> Iterator[Staged]:
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        train, validation = (Path(folder) / name for name in SPLITS)
        for path in (train, validation):
            _strip(asked.data / path.name, path)
        code = Path(folder) / "code"
        code.mkdir()
        wheel(code)
        yield Staged(train, validation, code)


def _strip(source: Path, target: Path) -> None:
    """The catalog's chat completion takes `messages` and trips over other columns."""
    with source.open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as stripped:
        for row in rows:
            messages = {"messages": json.loads(row)["messages"]}
            stripped.write(json.dumps(messages, ensure_ascii=False) + "\n")


def training_job(cloud: Cloud, asked: CatalogTraining, staged: Staged) -> Job:
    def build(name: str) -> Any:
        from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

        return create_finetuning_job(
            model=asked.asset,
            task=FineTuningTaskType.CHAT_COMPLETION,
            training_data=str(staged.train),
            validation_data=str(staged.validation),
            hyperparameters=asked.hyperparameters,
            compute=asked.profile.compute,
            output_model_name_prefix=OUTPUT,
            name=name,
            display_name=f"{asked.model} on {asked.tags['data']}",
            experiment_name=EXPERIMENT,
            tags=asked.tags,
        )

    settings = sorted(asked.hyperparameters.items())
    return Job(cloud, "phi3flow-catalog", version_of(asked.asset, staged.content, str(settings)), build)


def output_path(job: Job, output: str) -> str:
    return f"azureml://jobs/{job.name}/outputs/{output}/paths/"


def card_job(
    cloud: Cloud, asked: CatalogTraining, staged: Staged, tuned: ModelAsset
) -> tuple[Job, TrainingEnvironment]:
    image = GPU_IMAGE if asked.profile.compute.startswith("gpu") else IMAGE
    conda = Path(str(files("deploy.azure.container") / "environment-train.yaml"))
    environment = TrainingEnvironment(cloud, image, conda, {OURS: "finetune"})

    def build(name: str) -> Any:
        from azure.ai.ml import Input, Output, command

        return command(
            name=name,
            display_name=f"card of {tuned.name}",
            experiment_name=EXPERIMENT,
            code=str(staged.code),
            command=CARD_LINE,
            environment=f"azureml:{environment.name}",
            compute=asked.profile.compute,
            inputs={
                "tuned": Input(type="mlflow_model", path=f"azureml:{tuned.name}"),
                "base": Input(type="mlflow_model", path=asked.asset),
                "validation": Input(type="uri_file", path=str(staged.validation)),
            },
            outputs={
                "model": Output(type="mlflow_model"),
                "base": Output(type="custom_model"),
                "card": Output(type="uri_folder"),
            },
            tags=asked.tags,
        )

    identity = version_of(tuned.name, asked.asset, environment.version, sha256_of(staged.code), CARD_LINE)
    return Job(cloud, "phi3flow-card", identity, build), environment
