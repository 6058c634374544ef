"""Fine-tuning from the model catalog, as the portal's button does, and then the same way to an endpoint.

The service trains with its own code and leaves an MLflow model. A second job, of ours, has that model and its
base answer the fixed prompts and writes both as phi3flow serves them; from there `azure deploy` goes on as
after `azure train`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.azure.shared.assets import (
    PACKAGES,
    VERSION_LENGTH,
    model_asset,
    staged,
    training_environment,
    version_of,
)
from deploy.azure.shared.job import EXPERIMENT, Job, command_job, output_path, run_job
from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Action, Step, carry_out, made
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.session import Cloud, existing
from deploy.azure.shared.sizes import Profile
from deploy.azure.train import SPLITS, data_artifacts, record_training, require_splits
from phi3flow.chats.rows import load_split
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError, nearest
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import commit, sha256_of
from phi3flow.core.retirements import SERVERLESS_PHI3_ENDED
from phi3flow.core.sides import BASE

MODEL = re.compile(r"(?P<name>Phi-(?:3|3\.5|4)-mini-[\w-]*instruct):(?P<version>\d+)")
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
OUTPUT = "phi3-catalog"
OUTPUT_OF_SERVICE, FIRST_VERSION = "registered_model", "1"
CARD_LINE = (
    "python -P -m deploy.foundry.catalog_card "
    "${{inputs.tuned}} ${{inputs.base}} ${{inputs.validation}} "
    "${{outputs.model}} ${{outputs.base}} ${{outputs.card}}"
)


@dataclass(frozen=True)
class CatalogTraining:
    """A catalog model by name and version, and the settings that the portal offers."""

    data: Path
    model: str
    learning_rate: float
    scheduler: str
    epochs: int
    profile: Profile

    @cached_property
    def asset(self) -> str:
        """The model's address in the catalog. Raises BadInput unless it is a Phi mini with its version."""
        found = MODEL.fullmatch(self.model)
        if found is None:
            raise BadInput(
                f"{self.model}: not a Phi mini of the catalog with its version",
                "--model Phi-4-mini-instruct:VERSION; the model's page in the catalog shows the version",
            )
        return f"azureml://registries/azureml/models/{found['name']}/versions/{found['version']}"

    def require(self) -> None:
        """Raises BadInput for values that the service could only refuse after hours of waiting."""
        self.asset  # noqa: B018 - checks the model
        if not self.model.startswith("Phi-4"):
            say(
                f"{self.model}: its serverless endpoints ended on {SERVERLESS_PHI3_ENDED}, and the catalog "
                "may drop it; Phi-4-mini-instruct takes its place"
            )
        if self.scheduler not in SCHEDULERS:
            raise BadInput(f"--scheduler: unknown '{self.scheduler}'", nearest(self.scheduler, SCHEDULERS))
        if not 0 < self.learning_rate < 1:
            raise BadInput("--learning-rate: must be between 0 and 1", "--learning-rate 5e-6")
        if self.epochs < 1:
            raise BadInput("--epochs: must be at least 1", "--epochs 3")
        require_splits(self.data)
        for split in SPLITS:
            if any(chat.uses_tools for chat in load_split(self.data / split)):
                raise BadInput(
                    f"{self.data / split}: the catalog's chat completion takes no chats with tools",
                    "phi3flow azure train does",
                )

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


def finetune(cloud: Cloud, asked: CatalogTraining, out: Path, *, plan: bool) -> tuple[list[Action], str]:
    """Both jobs, watched to their ends, and `out` as `azure train` leaves it; returns the first job's name.

    Raises BadInput before anything is written, Phi3flowError when Azure or a job fails.
    """
    asked.require()
    with _bare_rows(asked.data) as rows, staged(PACKAGES) as code:
        training = _training_job(cloud, asked, rows)
        actions = run_job([], training, plan=plan)
        if plan:
            return actions, training.name
        with explaining(f"model of job {training.name}", made(actions)):
            tuned = registered_model(cloud, training.name)
        needs, card = _card_job(cloud, asked, rows, code, tuned)
        actions += run_job(needs, card, plan=False)
    name, path = BASE.connection, output_path(card.name, "base")
    base = model_asset(cloud, name, card.identity, path, kind="custom_model", tags=asked.tags)
    actions += carry_out([base], plan=False)
    details = {"catalog job": training.name, "tags": asked.tags, "compute": asked.profile.compute}
    finished = {"job": card.name, "identity": card.identity, **details, "base": base.name}
    record_training(cloud, finished, out, data_artifacts(asked.data))
    return actions, training.name


def registered_model(cloud: Cloud, job: str) -> str:
    """NAME:VERSION of the model that a fine-tuning job has registered itself, under its output's asset name.

    The output has no address that a client could register (recorded; and Microsoft's notebook of this task
    takes the model by name). Raises Phi3flowError where there is none.
    """
    output = cloud.ml.jobs.get(job).outputs.get(OUTPUT_OF_SERVICE)
    name = str(getattr(output, "name", None) or "")
    if not name or existing(cloud.ml.models.get, name, FIRST_VERSION) is None:
        raise Phi3flowError(
            f"job {job} is completed, but has registered no model {name}".rstrip(),
            "the job's page in the studio says why; the same command looks again",
        )
    return f"{name}:{FIRST_VERSION}"


@contextmanager
def _bare_rows(data: Path) -> Iterator[Path]:
    """A folder for the catalog's chat completion, which takes `messages` and trips over other columns."""
    with staged({}) as rows:
        for name in SPLITS:
            bare = ({"messages": row["messages"]} for row in read_jsonl(data / name))
            write_jsonl(rows / name, bare)
        yield rows


def _training_job(cloud: Cloud, asked: CatalogTraining, rows: Path) -> Job:
    """The catalog's own job."""
    train, validation = (rows / name for name in SPLITS)
    content = version_of(sha256_of(train), sha256_of(validation))
    settings = str(sorted(asked.hyperparameters.items()))
    identity = version_of(asked.asset, content, settings)

    def build(name: str) -> Any:
        from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

        return create_finetuning_job(
            model=asked.asset,
            task=FineTuningTaskType.CHAT_COMPLETION,
            training_data=str(train),
            validation_data=str(validation),
            hyperparameters=asked.hyperparameters,
            compute=asked.profile.compute,
            # A name of its own, so that the model's first version is this job's.
            output_model_name_prefix=f"{OUTPUT}-{identity}",
            name=name,
            display_name=f"{asked.model} on {asked.tags['data']}",
            experiment_name=EXPERIMENT,
            tags=asked.tags,
        )

    return Job(cloud, "phi3flow-catalog", identity, build)


def _card_job(
    cloud: Cloud, asked: CatalogTraining, rows: Path, code: Path, tuned: str
) -> tuple[list[Step], Job]:
    """`catalog_card` as a job: both models answer, and are written as phi3flow serves them; and its needs."""
    environment = training_environment(cloud, asked.profile.compute, "finetune")
    job = command_job(
        cloud,
        "phi3flow-card",
        [tuned, asked.asset, environment.version, sha256_of(code)],
        title=f"card of {tuned}",
        line=CARD_LINE,
        code=code,
        environment=environment,
        compute=asked.profile.compute,
        inputs={
            "tuned": ("mlflow_model", f"azureml:{tuned}"),
            "base": ("mlflow_model", asked.asset),
            "validation": ("uri_file", str(rows / SPLITS[1])),
        },
        outputs={"model": "mlflow_model", "base": "custom_model", "card": "uri_folder"},
        tags=asked.tags,
    )
    return [environment], job
