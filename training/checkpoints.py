"""Checkpoints that are safe to resume from.

Transformers writes a checkpoint file by file. A killed process or a full disk leaves a folder that only looks
like a checkpoint. So once every file is there, `sealed.json` is written with the hash of each; a checkpoint
without it, or with a file of another hash, is never used.
"""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import read_json, write_json
from phi3flow.core.lineage import sha256_of
from training.ranks import broadcast, is_main_process, wait_for_everyone

HASHES = "sealed.json"
KEPT = 2


class HashCheckpoints(TrainerCallback):
    """Writes the hashes of a new checkpoint once every rank has written its part, then deletes older ones.

    It keeps the best and the latest; where they are the same, also the one before. (Transformers would delete
    the older ones before the new one is complete.)
    """

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        wait_for_everyone()
        if not is_main_process():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
        write_json(folder / HASHES, hashes)
        older = _newest_first(folder.parent)
        for path in list(dict.fromkeys([folder, best_of(folder), *older]))[KEPT:]:
            shutil.rmtree(path)


def latest_checkpoint(folder: Path) -> Path | None:
    """Rank 0's newest valid checkpoint, the same on every rank; rank 0 deletes the invalid ones.

    Raises Phi3flowError on a rank that does not see it.
    """
    latest = broadcast(_delete_invalid(folder) if is_main_process() else None)
    if latest and not is_main_process() and not is_valid(latest):
        raise Phi3flowError(
            f"{latest}: rank 0 resumes from this checkpoint, but it is not on this machine's disk",
            hint=f"give --out on a disk that all machines share, or start again: rm -r {folder.parent}",
        )
    return latest


def valid_checkpoints(folder: Path) -> list[Path]:
    """Newest first: complete checkpoints whose best checkpoint is complete too."""
    complete = [path for path in _newest_first(folder) if is_valid(path)]
    return [path for path in complete if best_of(path) in complete]


def _delete_invalid(folder: Path) -> Path | None:
    """The newest valid one. Transformers would count the others when it deletes old ones."""
    valid = valid_checkpoints(folder)
    for path in _newest_first(folder):
        if path not in valid:
            shutil.rmtree(path)
    return valid[0] if valid else None


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What Transformers wrote about the run: steps, best checkpoint, states of callbacks."""
    state: dict[str, Any] = read_json(checkpoint / TRAINER_STATE_NAME)
    return state


def best_of(checkpoint: Path) -> Path:
    """The checkpoint with the lowest validation loss so far; itself before the first validation.

    Transformers stores its absolute path; only the name is used, as the folder may have been moved.
    """
    best = trainer_state(checkpoint)["best_model_checkpoint"]
    return checkpoint.with_name(Path(best).name) if best else checkpoint


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def ranks_of(checkpoint: Path) -> int:
    """How many ranks wrote their random state into it."""
    return max(1, len(list(checkpoint.glob("rng_state_*.pth"))))


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def is_valid(checkpoint: Path) -> bool:
    """Whether every file listed in its `sealed.json` is there, with the same hash."""
    try:
        hashes = read_json(checkpoint / HASHES)
    except (FileNotFoundError, ValueError):
        return False
    return all(
        (checkpoint / name).is_file() and sha256_of(checkpoint / name) == expected
        for name, expected in hashes.items()
    )
