"""A Llama of the hub, or of a folder with the same files: the model, its tokenizer and its licence."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.core.lineage import sha256_of
from training.models.loading import load_config, load_model, load_tokenizer, weights_folder
from training.pretrained.llama_as_phi3 import require_convertible
from training.pretrained.package import require_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD = "README.md"
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


class HubModel(NamedTuple):
    """`licence` is what the model card names, `licence_text` a file beside it; None where there is none."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    licence: str | None
    licence_text: str | None
    sha256: dict[str, str]  # of the files with weights
    commit: str | None


def read_hub_model(name: str) -> HubModel:
    """Load `name`, a hub id or a folder; the hub's files must have the sha256 that the hub gives for them.

    Raises BadInput for what is no Llama or cannot be loaded, and Phi3flowError for a damaged download.
    """
    require_convertible(load_config(name))
    tokenizer, model = load_tokenizer(name), load_model(name)
    folder = weights_folder(name, None)
    hashes = {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
    for file in hashes:
        _require_as_published(folder / file, name)
    card, text = (_optional(name, files) for files in ((CARD,), LICENCE_FILES))
    commit = None if Path(name).is_dir() else folder.name
    return HubModel(model, tokenizer, licence_in(card or ""), text, hashes, commit)


def licence_in(card: str) -> str | None:
    """The `license:` of a model card's front matter."""
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    found = re.search(r"^license:[ \t]*(\S+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _require_as_published(file: Path, name: str) -> None:
    """The hub's cache names a large file after the sha256 that the hub gave for it."""
    stored_as = file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", stored_as):
        require_sha256(file, stored_as, name)


def _optional(name: str, files: tuple[str, ...]) -> str | None:
    """The text of the first of these files that the model has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        path = Path(name) / file
        if not Path(name).is_dir():
            try:
                path = Path(hf_hub_download(name, file))
            except EntryNotFoundError:
                continue
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None
