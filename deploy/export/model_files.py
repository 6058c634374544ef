"""The files of a model folder that an export takes over as they are."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from training.models.loading import LICENCES, require_own

TOKENIZER = ("*.jinja", "added_tokens.json", "special_tokens_map.json", "tokenizer*")
CONFIGURATION = ("config.json", "generation_config.json")


def copied(model: Path, patterns: Sequence[str]) -> list[Path]:
    """Those files, and the licences. Raises BadInput for a link that leads out of the model."""
    wanted = (*patterns, *LICENCES)
    files = [file for pattern in wanted for file in sorted(model.glob(pattern)) if file.is_file()]
    return [require_own(file, model) for file in files]


def copy_files(model: Path, work: Path, patterns: Sequence[str]) -> None:
    for file in copied(model, patterns):
        shutil.copy2(file, work / file.name)
