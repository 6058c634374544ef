"""The files of a model folder that an export takes over as they are."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from phi3flow.core.errors import BadInput
from phi3flow.core.files import leads_out
from training.models.loading import LICENCES

TOKENIZER = ("*.jinja", "added_tokens.json", "special_tokens_map.json", "tokenizer*")
CONFIGURATION = ("config.json", "generation_config.json")


def copied(model: Path, patterns: Sequence[str]) -> list[Path]:
    """Those files, and the licences.

    Raises BadInput for a link that leads out of the model; those of the hub's cache lead to its blobs.
    """
    cached = model.resolve().parents[1] if model.resolve().parent.name == "snapshots" else model
    wanted = (*patterns, *LICENCES)
    files = [file for pattern in wanted for file in sorted(model.glob(pattern)) if file.is_file()]
    for file in files:
        if leads_out(file, cached):
            raise BadInput(
                f"{file}: a link that leads out of the model's folder", hint="put the file itself there"
            )
    return files


def copy_files(model: Path, work: Path, patterns: Sequence[str]) -> None:
    for file in copied(model, patterns):
        shutil.copy2(file, work / file.name)
