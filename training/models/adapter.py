"""A folder of LoRA adapters is no model yet: what it is, and the command that makes one of it."""

import shlex
from pathlib import Path

from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json

MERGE = (
    "import sys; from peft import AutoPeftModelForCausalLM as Adapted; "
    "from transformers import AutoTokenizer; "
    "adapters, base, out = sys.argv[1:]; "
    "Adapted.from_pretrained(adapters, trust_remote_code=False).merge_and_unload().save_pretrained(out); "
    "AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(out)"
)


def require_no_adapter(folder: Path) -> None:
    """Raise BadInput for a folder of adapters, with the command that merges them into their base model."""
    file = folder / "adapter_config.json"
    if not file.is_file() or (folder / "config.json").is_file():
        return
    try:
        base = str(read_json(file)["base_model_name_or_path"])
    except (OSError, ValueError, LookupError, TypeError):
        base = "BASE"
    words = ["python", "-c", MERGE, str(folder), base, f"{folder}-merged"]
    raise BadInput(
        f"{folder}: LoRA adapters of {base}, not a model: merge them first", hint=shlex.join(words)
    )
