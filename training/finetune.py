"""Supervised fine-tuning, the one training path on a laptop and in a cloud job.

The model folder appears when everything is in it. Until then the run lives in `.NAME.partial` beside it, with
its checkpoints, and the same command continues there.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.lineage import Artifact, read_manifest, write_manifest
from training.loop.run import train
from training.loop.start import CHECKPOINTS, Result, Run, revision
from training.models.loading import looks_like_id, weights_folder, what_exists
from training.ranks import agreed, join, leads, leave, tell
from training.recipes.recipe import Recipe

IDENTITY = ".run.json"  # hidden, so that it is no part of the folder's hash


@dataclass(frozen=True)
class TrainedModel:
    """A model folder that transformers loads, and how the run that made it ended."""

    folder: Path
    result: Result


def finetune(
    data: Path, recipe: Recipe, out: Path, *, model: str | None = None, seed: int = 0
) -> TrainedModel:
    """Train on `data/train.jsonl`, watch `data/val.jsonl`, and write the model folder `out`.

    A folder that the same data, recipe, model and seed made already is returned as it is. Where a launcher
    has started several ranks, all of them call this, and rank 0 alone writes.
    Raises BadInput for unusable input and for an `out` that holds something else, Phi3flowError when training
    fails, KeyboardInterrupt after a checkpoint.
    """
    start = model or recipe.model
    rows = [data / name for name in ("train.jsonl", "val.jsonl")]
    _require_existing(rows, start)
    inputs = [Artifact.of("data", path) for path in rows]
    folder = start is not None and Path(start).is_dir()
    if start and folder:
        inputs.append(Artifact.of("model", Path(start)))
    identity = {
        "inputs": [artifact.sha256 for artifact in inputs],
        "recipe": asdict(recipe),
        "model": None if folder else start,
        "seed": seed,
    }
    run = Run(data, recipe, out.with_name(f".{out.name}.partial"), out.name, start, seed)
    join()
    if leads() and not out.exists() and (read_manifest(run.work) or {}).get("identity") == identity:
        _publish(run, out)
    if (finished := agreed(_finished(out, identity) if leads() else None)) is not None:
        leave()
        tell(f"  {out} was trained by the same recipe on the same data: nothing to do")
        return finished
    result = _train_in(run, identity)
    if leads():
        details: dict[str, Any] = {"recipe": asdict(recipe), "identity": identity, "result": asdict(result)}
        if start and not folder:
            details["revision"] = weights_folder(start, revision(run)).name  # the commit, as the cache has it
        made = Artifact.of("model", run.work)
        write_manifest(run.work, "model", inputs=inputs, outputs=[made], seed=seed, details=details)
        _publish(run, out)
    return TrainedModel(out, result)


def _publish(run: Run, out: Path) -> None:
    """The last step of a run whose manifest is written; interrupted, it is taken again."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    (run.work / IDENTITY).unlink(missing_ok=True)
    run.work.rename(out)


def _train_in(run: Run, identity: dict[str, Any]) -> Result:
    """Train where the run lives until it is finished; nothing stays of one that ends before a checkpoint."""
    if not leads():
        return train(run)
    _require_own(run.work, identity)
    try:
        return train(run)
    except BaseException:
        if not any(run.checkpoints.glob("checkpoint-*")):
            shutil.rmtree(run.work)
        raise


def _require_existing(rows: list[Path], start: str | None) -> None:
    """Raises BadInput with all that is missing. Whether a hub model exists, only the hub can say."""
    problems = {
        f"{path}: no such file": f"phi3flow prepare CHATS.jsonl --out {path.parent}"
        for path in rows
        if not path.is_file()
    }
    if start is not None and not Path(start).is_dir() and not looks_like_id(start):
        problems[f"{start}: no such model folder"] = what_exists(start)
    if problems:
        raise BadInput("\n".join(problems), hint="; ".join(dict.fromkeys(problems.values())))


def _finished(out: Path, identity: dict[str, Any]) -> TrainedModel | None:
    """The result standing in `out`, None if `out` is free. Raises BadInput where it holds something else."""
    if not out.exists():
        return None
    manifest = read_manifest(out) or {}
    if manifest.get("identity") == identity:
        return TrainedModel(out, Result(**manifest["result"]))
    raise BadInput(
        f"{out} exists and was made from something else", hint=f"choose another --out, or remove {out}"
    )


def _require_own(work: Path, identity: dict[str, Any]) -> None:
    """Make `work`, or find this run's own there. Raises BadInput where another unfinished run lives."""
    found = read_json(work / IDENTITY) if (work / IDENTITY).exists() else None
    if work.exists() and found != identity:
        if found and any(work.glob(f"{CHECKPOINTS}/checkpoint-*")):
            raise BadInput(
                f"{work} holds an unfinished run of something else",
                hint=f"run that command again, or remove {work}",
            )
        shutil.rmtree(work)  # nobody's, or stopped before its first checkpoint
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / IDENTITY, identity)
