"""Checkpoints one can trust: each is sealed when it is complete, and only a sealed one is continued from.

Transformers writes a checkpoint file by file; a process killed or a disk filled meanwhile leaves a folder
that looks like one. The seal lists every file's hash and is written last.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.lineage import sha256_of
from training.ranks import agreed, leads, wait_for_all

SEAL = "sealed.json"
KEPT = 2


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint once every rank has written its part, and only then removes older ones.

    The best and the last are kept, and where they are one, the one before. Transformers would remove them
    before the new one is sealed.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        wait_for_all()
        if not leads():
            return
        folder = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
        write_json(folder / SEAL, hashes)
        older = _newest_first(folder.parent)
        for path in list(dict.fromkeys([folder, best_of(folder), *older]))[KEPT:]:
            shutil.rmtree(path)


def agreed_checkpoint(folder: Path) -> Path | None:
    """The newest usable one, as rank 0 sees it, after removing the others. Raises Phi3flowError elsewhere."""
    last = agreed(_only_usable(folder) if leads() else None)
    if last and not leads() and not is_sealed(last):
        raise Phi3flowError(
            f"{last}: rank 0 would continue from it, and it is not on this machine's disk",
            hint=f"give --out on a disk that every machine sees, or start anew: rm -r {folder.parent}",
        )
    return last


def usable(folder: Path) -> list[Path]:
    """Newest first: those whose files are what their seal says, and whose best is among them."""
    sealed = [path for path in _newest_first(folder) if is_sealed(path)]
    return [path for path in sealed if best_of(path) in sealed]


def _only_usable(folder: Path) -> Path | None:
    """The newest, once the others, which a resumed run would take for newer ones, are removed."""
    kept = usable(folder)
    for path in _newest_first(folder):
        if path not in kept:
            shutil.rmtree(path)
    return kept[0] if kept else None


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What Transformers wrote of the run: steps, best checkpoint, the state of callbacks."""
    state: dict[str, Any] = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    return state


def best_of(checkpoint: Path) -> Path:
    """The one that had validated best by then; itself before the first validation.

    Transformers notes its path of then, and the folder may have been moved.
    """
    best = trainer_state(checkpoint)["best_model_checkpoint"]
    return checkpoint.with_name(Path(best).name) if best else checkpoint


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
