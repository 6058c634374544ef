"""Checkpoints one can trust: each is sealed when it is complete, and only a sealed one is continued from.

Transformers writes a checkpoint file by file; a process killed or a disk filled meanwhile leaves a folder
that looks like one. The seal lists every file's hash and is written last.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from phi3flow.errors import Phi3flowError
from phi3flow.files import write_json
from phi3flow.lineage import sha256_of
from training.ranks import agreed, leads, wait_for_all

SEAL = "sealed.json"


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint once every rank has written its part."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        wait_for_all()
        if not leads():
            return
        folder = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
        write_json(folder / SEAL, hashes)


def agreed_checkpoint(folder: Path) -> Path | None:
    """The newest sealed one, as rank 0 sees it, after removing torn ones. Raises Phi3flowError elsewhere."""
    if leads():
        remove_torn(folder)
    last = agreed(last_sealed(folder) if leads() else None)
    if last and not is_sealed(last):
        raise Phi3flowError(
            f"{last}: rank 0 would continue from it, and it is not on this machine's disk",
            hint=f"give --out on a disk that every machine sees, or start anew: rm -r {folder.parent}",
        )
    return last


def last_sealed(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` whose files are what its seal says; None to start anew."""
    return next((path for path in _newest_first(folder) if is_sealed(path)), None)


def remove_torn(folder: Path) -> None:
    """Remove the checkpoints that nobody can continue from.

    Transformers keeps the newest few by name, so a torn one would push a whole one out.
    """
    for path in _newest_first(folder):
        if not is_sealed(path):
            shutil.rmtree(path)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)


def is_sealed(checkpoint: Path) -> bool:
    seal = checkpoint / SEAL
    if not seal.is_file():
        return False
    try:
        hashes = json.loads(seal.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return all(
        (checkpoint / name).is_file() and sha256_of(checkpoint / name) == expected
        for name, expected in hashes.items()
    )
