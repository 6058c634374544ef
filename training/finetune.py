"""Fine-tuning: the one training path for every method, on a laptop and in a cloud job.

The model folder appears once it is complete. Until then the run and its checkpoints are in `.NAME.partial`
beside it, and the same command continues there.
"""

import hashlib
import shlex
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from phi3flow.chats.system_prompt import FIELD as SYSTEM_PROMPT
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.lineage import Artifact, read_manifest, write_manifest
from training.loop.start import CHECKPOINTS, Result, Run
from training.models.loading import looks_like_id, weights_folder, what_exists
from training.ranks import (
    broadcast,
    destroy,
    explaining_a_lost_rank,
    init,
    is_main_process,
    print0,
    world_size,
)
from training.recipes.recipe import Recipe

ROOT = Path(__file__).parents[1]
CODE = ("training", "phi3flow/chats")
LIBRARIES = ("torch", "transformers", "trl")
HOW = {"sharding", "liger"}  # fields that say how the work is done, not which; they may change within a run
OF_PREFERENCES = {"method", "beta"}  # fields that say nothing about sft, whose runs are older than they are
IDENTITY = ".run.json"  # hidden: not part of the folder's hash


@dataclass(frozen=True)
class TrainedModel:
    """A model folder that transformers loads, and the result of its run."""

    folder: Path
    result: Result


def finetune(
    data: Path, recipe: Recipe, out: Path, *, model: str | None = None, seed: int = 0
) -> TrainedModel:
    """Train on `data/train.jsonl`, validate on `data/val.jsonl`, and write the model folder `out`.

    For dpo and kto `data` is a file of preferences, of which about a fifth is held out.

    If the same data, recipe, model and seed already made `out`, it is returned unchanged. With several ranks
    all of them call this, and only rank 0 writes.
    Raises BadInput for bad input and for an `out` that holds something else, Phi3flowError if training fails,
    KeyboardInterrupt after a checkpoint.
    """
    start = model or recipe.model
    run = Run(data, recipe, out.with_name(f".{out.name}.partial"), out.name, start, seed)
    _require_existing(_rows_of(run), start)
    inputs = _data_of(run)
    folder = start is not None and Path(start).is_dir()
    if start and folder:
        inputs.append(Artifact.of("model", Path(start)))
    identity = {
        "inputs": [artifact.sha256 for artifact in inputs],
        "recipe": _identity_of(recipe),
        "model": None if folder else start,
        "seed": seed,
    }
    init(sharding=recipe.sharding is not None)
    if is_main_process() and not out.exists() and (read_manifest(run.work) or {}).get("identity") == identity:
        _publish(run, out)
    if (finished := broadcast(_finished(out, identity) if is_main_process() else None)) is not None:
        destroy()
        print0(f"  {out} is already trained with this recipe on this data: nothing to do")
        return finished
    require_processes(recipe, world_size())
    with explaining_a_lost_rank():
        result = _train_in(run, identity)
    if is_main_process():
        details: dict[str, Any] = {"recipe": asdict(recipe), "identity": identity, "result": asdict(result)}
        details |= {"code": training_code(), SYSTEM_PROMPT: result.system_prompt}
        if start and not folder:
            details["revision"] = weights_folder(start, run.revision).name  # the commit
        made = Artifact.of("model", run.work)
        write_manifest(run.work, "model", inputs=inputs, outputs=[made], seed=seed, details=details)
        _publish(run, out)
    return TrainedModel(out, result)


def _rows_of(run: Run) -> list[Path]:
    """The files to learn from. Raises BadInput for a folder instead of a file, and the other way round."""
    data, method = run.data, run.recipe.method
    if method == "sft":
        if data.is_file():
            raise BadInput(
                f"{data}: a file, and sft learns from a folder of `phi3flow prepare`",
                hint=f"phi3flow prepare {shlex.quote(str(data))} --out DIR; "
                "or --method dpo, if it has preferences",
            )
        return [data / name for name in ("train.jsonl", "val.jsonl")]
    if data.is_dir():
        raise BadInput(
            f"{data}: a folder, and {method} learns from a file of preferences",
            hint=f"phi3flow feedback {shlex.quote(str(data.parent))} --out preferences.jsonl",
        )
    return [data]


def _data_of(run: Run) -> list[Artifact]:
    """The files to learn from, and of preferences the test sets whose questions are refused."""
    if run.recipe.method == "sft":
        return [Artifact.of("data", path) for path in _rows_of(run)]
    tests = [Artifact.of("test", path) for path in run.test_files]
    return [Artifact.of("preferences", run.data), *tests]


def _identity_of(recipe: Recipe) -> dict[str, Any]:
    """The fields that decide what comes out."""
    without = HOW if recipe.learns_preferences else HOW | OF_PREFERENCES
    return {name: value for name, value in asdict(recipe).items() if name not in without}


def require_processes(recipe: Recipe, processes: int) -> None:
    """Raise BadInput for a recipe with sharding and a single process."""
    if recipe.sharding and processes == 1:
        raise BadInput(
            f'sharding = "{recipe.sharding}" splits the model over several processes, and this is one',
            hint="torchrun --nproc-per-node N --no-python phi3flow train ... (azure train --nodes N), or "
            "leave sharding out of the recipe, also to continue",
        )


def training_code() -> str:
    """SHA-256 of our training code with its recipes and corpora, and of the versions of its libraries.

    It is not part of a run's identity: an upgrade must not make a trained model useless.
    """
    digest = hashlib.sha256(" ".join(version(name) for name in LIBRARIES).encode())
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.*")):
        if path.suffix in {".py", ".toml", ".csv"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _publish(run: Run, out: Path) -> None:
    """The last step, once the manifest is written. An interrupted one is repeated by the next call."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    (run.work / IDENTITY).unlink(missing_ok=True)
    run.work.rename(out)


def _train_in(run: Run, identity: dict[str, Any]) -> Result:
    """Train in `run.work`, and delete it if the run ends before its first checkpoint."""
    from training.loop.run import train

    if not is_main_process():
        return train(run)
    _require_own(run.work, identity)
    try:
        return train(run)
    except BaseException:
        if not any(run.checkpoints.glob("checkpoint-*")):
            shutil.rmtree(run.work)
        raise


def _require_existing(rows: list[Path], start: str | None) -> None:
    """Raise BadInput for everything that is missing. Hub models are looked up later."""
    problems = {f"{path}: no such file": _maker_of(path) for path in rows if not path.is_file()}
    if start is not None and not Path(start).is_dir() and not looks_like_id(start):
        problems[f"{start}: no such model folder"] = what_exists(start)
    if problems:
        raise BadInput("\n".join(problems), hint="; ".join(dict.fromkeys(problems.values())))


def _maker_of(path: Path) -> str:
    """The command that writes a missing file."""
    if path.name in {"train.jsonl", "val.jsonl"}:
        return f"phi3flow prepare CHATS.jsonl --out {shlex.quote(str(path.parent))}"
    return f"phi3flow feedback RUN --out {shlex.quote(str(path))}"


def _finished(out: Path, identity: dict[str, Any]) -> TrainedModel | None:
    """The finished model in `out`; None if nothing is there. Raises BadInput if it is something else."""
    if not out.exists():
        return None
    manifest, folder = read_manifest(out) or {}, shlex.quote(str(out))
    if manifest.get("identity") == identity:
        if manifest.get("code") != training_code():
            say(
                f"  {out} was trained by another version of phi3flow or torch. To train again: rm -r {folder}"
            )
        return TrainedModel(out, Result(**manifest["result"]))
    raise BadInput(
        f"{out} exists and was made from other data, or with another recipe, model or seed",
        hint=f"choose another --out, or: rm -r {folder}",
    )


def _require_own(work: Path, identity: dict[str, Any]) -> None:
    """Make `work`, or continue this run's own. Raises BadInput if it holds another unfinished run."""
    found = read_json(work / IDENTITY) if (work / IDENTITY).exists() else None
    if work.exists() and found != identity:
        if found and any(work.glob(f"{CHECKPOINTS}/checkpoint-*")):
            raise BadInput(
                f"{work} holds an unfinished run with other data or another recipe, model or seed",
                hint=f"run that command again, or: rm -r {shlex.quote(str(work))}",
            )
        shutil.rmtree(work)  # stopped before its first checkpoint
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / IDENTITY, identity)
