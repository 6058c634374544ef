"""`phi3flow azure train`: the same `phi3flow train`, as a command job."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deploy.azure.shared.assets import (
    PACKAGES,
    VERSION_LENGTH,
    Asset,
    data_asset,
    model_asset,
    staged,
    training_environment,
)
from deploy.azure.shared.job import Job, command_job, follow, run_job
from deploy.azure.shared.names import OURS
from deploy.azure.shared.plan import Action, Step, carry_out
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.session import Cloud
from deploy.azure.shared.sizes import Profile
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.lineage import Artifact, commit, read_manifest, sha256_of, write_manifest
from phi3flow.core.sides import BASE, TUNED
from training.models.adapter import require_no_adapter

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
SPLITS = ("train.jsonl", "val.jsonl")  # the held-out test rows stay here
CARD = TUNED.name  # the folder beside the run's manifest
MARK = ".job"  # in the card: which job it is of
SUBMIT = "submit"  # the manifest's step of a job that is waited for later
RECIPE = "recipe.toml"  # in the job's code folder, where the recipe is a file of the user's


@dataclass(frozen=True)
class Training:
    """What is asked for. `recipe`: a shipped name or a file; `model`: a hub id, a folder, or the recipe's."""

    data: Path
    recipe: str
    model: str | None
    seed: int
    nodes: int
    profile: Profile

    @property
    def base(self) -> Path | None:
        """The folder to start from, where it is one."""
        return Path(self.model) if self.model and Path(self.model).is_dir() else None

    @cached_property
    def tags(self) -> dict[str, str]:
        """What was trained on what, by which code; no secret and no path."""
        found = {
            OURS: "train",
            "data": sha256_of(self.data / SPLITS[0])[:VERSION_LENGTH],
            "recipe": Path(self.recipe).name,
            "seed": str(self.seed),
            "commit": commit() or "",
        }
        base = sha256_of(self.base)[:VERSION_LENGTH] if self.base else (self.model or "")
        return found | ({"base": base} if base else {})


def train(
    cloud: Cloud,
    asked: Training,
    out: Path,
    *,
    plan: bool,
    wait: bool = True,
    code: Mapping[str, Path] = PACKAGES,
) -> tuple[list[Action], str]:
    """Submit or find the job, watch it, fetch what `verify` needs into `out/tuned`; returns the job's name.

    Without `wait` it is only submitted, for `wait_for` to go on. Raises BadInput before anything is written,
    Phi3flowError when Azure or the job fails.
    """
    require_splits(asked.data)
    rows = {name: asked.data / name for name in SPLITS}
    recipe = {RECIPE: Path(asked.recipe)} if Path(asked.recipe).is_file() else {}
    base = base_model(cloud, asked.base, asked.tags) if asked.base else None
    with staged(rows) as data, staged({**code, **recipe}) as folder:
        needs, job = _job(cloud, asked, base, data, folder)
        actions = run_job(needs, job, plan=plan) if wait else carry_out([*needs, job], plan=plan)
    if not plan:
        details = {"job": job.name, "identity": job.identity, "tags": asked.tags}
        details |= {"compute": asked.profile.compute, **({"base": base.name} if base else {})}
        inputs = data_artifacts(asked.data)
        if wait:
            record_training(cloud, details, out, inputs)
        else:
            record(out, SUBMIT, details, inputs)
    return actions, job.name


def wait_for(cloud: Cloud, out: Path, seconds: float) -> bool:
    """Whether the submitted job is completed within `seconds`, and `out/tuned` fetched.

    Raises BadInput where none was submitted, Phi3flowError when it fails or the login expires meanwhile.
    """
    submitted = recorded(out, SUBMIT)
    name = str(submitted["job"])
    with explaining(f"job {name}", [f"job {name}"]):
        try:
            follow(cloud, name, seconds=seconds)
        except TimeoutError:
            return False
    record_training(cloud, submitted, out)
    return True


def _job(cloud: Cloud, asked: Training, base: Asset | None, rows: Path, code: Path) -> tuple[list[Step], Job]:
    """The job, and before it what it needs. `rows` and `code` are the folders to upload."""
    environment = training_environment(cloud, asked.profile.compute, "train")
    data = data_asset(cloud, rows, {OURS: "train", "data": asked.tags["data"]})
    inputs = {"data": data.as_input, **({"base": base.as_input} if base else {})}
    job = command_job(
        cloud,
        "phi3flow-train",
        [environment.version, data.version, base.version if base else "", sha256_of(code)],
        title=f"{asked.tags['recipe']} on {asked.tags['data']}",
        line=command_line(asked),
        code=code,
        environment=environment,
        compute=asked.profile.compute,
        inputs=inputs,
        outputs={"model": "mlflow_model", "card": "uri_folder"},
        tags=asked.tags,
        nodes=asked.nodes,
    )
    return [environment, data, *([base] if base else [])], job


def command_line(asked: Training) -> str:
    """One line of shell: look for the GPU, train, write the outputs, log the run to the workspace."""
    recipe = RECIPE if Path(asked.recipe).is_file() else asked.recipe
    model = ["--model", "${{inputs.base}}" if asked.base else asked.model] if asked.model else []
    words = ["train", "--data", "${{inputs.data}}", "--recipe", recipe, *model]
    words += ["--out", CARD, "--seed", str(asked.seed)]
    quoted = " ".join(word if word.startswith("${{") else shlex.quote(str(word)) for word in words)
    outputs = "${{outputs.model}} ${{outputs.card}}"
    run = "python -P -m"
    gpu = f"{run} deploy.azure.job_gpu && " if asked.profile.gpu else ""
    return f"{gpu}PHI3FLOW_TRACK=0 {run} phi3flow {quoted} && {run} deploy.azure.job_outputs {CARD} {outputs}"


def require_splits(data: Path) -> None:
    """Raises BadInput unless `data` is what `phi3flow prepare` writes."""
    for name in SPLITS:
        if not (data / name).is_file():
            raise BadInput(f"{data / name}: no such file", f"phi3flow prepare CHATS.jsonl --out {data}")


def check_here(asked: Training) -> None:
    """Encode the chats before a machine is paid for. Raises BadInput for what the job would refuse."""
    _require_base(asked.model)
    if not find_spec("transformers"):
        say("  chats are not checked here: pip install 'phi3flow[train]'")
        return
    from training.finetune import require_processes
    from training.inspection import check_lengths
    from training.recipes.recipe import load_recipe

    recipe = load_recipe(asked.recipe)
    require_processes(recipe, asked.nodes)
    try:
        told = check_lengths(asked.data, recipe, asked.model)
    except BadInput:
        raise
    except Phi3flowError as error:
        say(f"  chats are not checked here: {error}")
        return
    for sentence in told:
        say(f"  {sentence}")


def _require_base(model: str | None) -> None:
    """Raises BadInput for adapters alone, for a folder without a model, and for one that is not there."""
    if model is None:
        return
    folder = Path(model)
    require_no_adapter(folder)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise BadInput(f"{model}: not a model folder (no config.json)", "give the folder of a base model")
    if not folder.is_dir() and not HUB_ID.fullmatch(model):
        raise BadInput(f"{model}: no such model folder", "hf download ID --local-dir DIR, then --model DIR")


def base_model(cloud: Cloud, folder: Path, tags: dict[str, str]) -> Asset:
    """The base as a registered model: the job starts from it, and `deploy --base` serves the same one."""
    version = sha256_of(folder)[:VERSION_LENGTH]
    return model_asset(
        cloud, BASE.connection, version, str(folder), kind="custom_model", tags={**tags, OURS: "train"}
    )


def data_artifacts(data: Path) -> list[Artifact]:
    return [Artifact.of("data", data / split) for split in SPLITS]


def record_training(
    cloud: Cloud, finished: Mapping[str, Any], out: Path, inputs: Sequence[Artifact] = ()
) -> None:
    """What `deploy` needs of a finished job: its small files as `out/tuned`, its names in the manifest."""
    name = str(finished["job"])
    with explaining(f"job {name}", [f"job {name}"]):
        _fetch_card(cloud, name, out)
    record(out, "train", finished, inputs, [Artifact.of("model", out / CARD)])


def record(
    folder: Path,
    step: str,
    details: Mapping[str, Any],
    inputs: Sequence[Artifact] = (),
    outputs: Sequence[Artifact] = (),
) -> None:
    """Add a finished step to `folder/manifest.json`, so that later steps find its names; other steps stay."""
    before = read_manifest(folder) or {}
    write_manifest(
        folder,
        "azure",
        inputs=inputs or [Artifact(**known) for known in before.get("inputs", [])],
        outputs=outputs or [Artifact(**known) for known in before.get("outputs", [])],
        details={"steps": {**before.get("steps", {}), step: dict(details)}},
    )


def recorded(folder: Path, step: str) -> dict[str, Any]:
    """What `step` wrote. Raises BadInput where it has not been done."""
    done = (read_manifest(folder) or {}).get("steps", {}).get(step)
    if done is None:
        command = "train --no-wait" if step == SUBMIT else step
        raise BadInput(f"{folder}: no {step} is recorded there", f"phi3flow azure {command} --out {folder}")
    return dict(done)


def _fetch_card(cloud: Cloud, job: str, out: Path) -> None:
    """Complete or not at all."""
    mark = out / CARD / MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") == job:
        return
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".card-", dir=out) as folder:
        say(f"fetching what job {job} recorded")
        cloud.ml.jobs.download(job, download_path=folder, output_name="card")
        card = Path(folder) / "named-outputs" / "card"
        (card / MARK).write_text(job, encoding="utf-8")
        shutil.rmtree(out / CARD, ignore_errors=True)
        card.rename(out / CARD)
