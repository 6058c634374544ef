"""Whether a model folder's files can be what they are called, before a library builds something from them."""

import json
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput
from training.models.whole_weights import HINT

MB = 1 << 20
MOST_BYTES = {
    "config.json": 16 * MB,
    "generation_config.json": 16 * MB,
    "tokenizer_config.json": 64 * MB,
    "tokenizer.json": 512 * MB,
    "special_tokens_map.json": 16 * MB,
    "added_tokens.json": 16 * MB,
    "model.safetensors.index.json": 64 * MB,
    "chat_template.jinja": MB,
    "additional_chat_templates/*.jinja": MB,
}
MOST = {  # of config.json's numbers; models of today are far below
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "original_max_position_embeddings": 1 << 24,
}


def require_sound_files(folder: Path) -> None:
    """Raise BadInput that names the file and the field."""
    for pattern, most in MOST_BYTES.items():
        for file in folder.glob(pattern):
            if file.exists() and not file.is_file():
                raise BadInput(f"{file}: not a file", hint=HINT)
            if file.is_file() and file.stat().st_size > most:
                raise BadInput(f"{file}: larger than {most // MB} MB", hint=HINT)
    config = _read(folder / "config.json")
    for name, most in MOST.items():
        value = config.get(name)
        if value is not None and not (_is_whole(value) and 1 <= value <= most):
            raise BadInput(f"{folder / 'config.json'}: {name}: a number from 1 to {most} is meant", hint=HINT)
    ends = _read(folder / "generation_config.json").get("eos_token_id")
    if ends is not None and not all(map(_is_whole, ends if isinstance(ends, list) else [ends])):
        file = folder / "generation_config.json"
        raise BadInput(f"{file}: eos_token_id: a token id or a list of them is meant", hint=HINT)


def _read(file: Path) -> dict[str, Any]:
    """The file's object; none for a file that is missing."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not JSON: {str(error)[:100]}", hint=HINT) from None
    if not isinstance(found, dict):
        raise BadInput(f"{file}: not a JSON object", hint=HINT)
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
