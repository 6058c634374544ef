"""What can be seen of a model folder without loading anything."""

from pathlib import Path

from phi3flow.core.errors import BadInput


def require_model_folder(folder: Path) -> None:
    """Raise BadInput unless a configuration and a tokenizer lie in `folder`."""
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"{folder}: not a model folder (no config.json)",
            hint="phi3flow demo makes one in runs/demo/tuned",
        )
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(
            f"{folder}: no tokenizer.json", hint="copy the tokenizer files of the model it was made from"
        )
