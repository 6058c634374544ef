"""Start vLLM on the mounted model folder, with the model's chat template guarded as phi3flow guards it.

vLLM renders prompts itself and reads `<|end|>` in a user's text as the end of a turn. The guard breaks up
special tokens before the model's own template sees them. Runs in the vLLM image, where phi3flow is not
installed.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

PORT = 8000
MAX_RUNNING = 128  # answers in one batch; the others wait
ZERO_WIDTH_SPACE = "\u200b"  # as phi3flow.chats.chat_template.neutralise


def guarded(tokenizer: Any) -> str:
    """Jinja that renders any messages as phi3flow renders them: the guard, then the model's own template."""
    specials = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
    broken = {special: special[0] + ZERO_WIDTH_SPACE + special[1:] for special in specials}
    filters = "".join(f" | replace({json.dumps(old)}, {json.dumps(new)})" for old, new in broken.items())
    return (
        "{%- set guarded = namespace(messages=[]) -%}"
        "{%- for message in messages -%}"
        "{%- set guarded.messages = guarded.messages + "
        f"[{{'role': message['role'], 'content': message['content']{filters}}}] -%}}"
        "{%- endfor -%}"
        "{%- set messages = guarded.messages -%}" + str(tokenizer.chat_template)
    )


def context(config: dict[str, Any]) -> list[str]:
    """Long rotary factors, once allowed, are used for short prompts too: keep to the original context."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) != "longrope":
        return []
    original = config.get("original_max_position_embeddings") or rope["original_max_position_embeddings"]
    return ["--max-model-len", str(original)]


def command(folder: Path, template: Path) -> list[str]:
    """Greedy unless asked otherwise, as the endpoint; the tokens that end an answer are the folder's own."""
    return [
        *("vllm", "serve", str(folder)),
        *("--served-model-name", folder.name),
        *("--chat-template", str(template)),
        *("--chat-template-content-format", "string"),
        *("--override-generation-config", '{"temperature": 0}'),
        *("--dtype", "bfloat16"),
        *("--max-num-seqs", str(MAX_RUNNING)),
        *("--port", str(PORT)),
        *context(json.loads((folder / "config.json").read_text(encoding="utf-8"))),
    ]


def main(mount: Path) -> None:
    from transformers import AutoTokenizer

    folder = min(path.parent for path in mount.rglob("config.json"))
    template = Path(tempfile.mkdtemp()) / "chat_template.jinja"
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    template.write_text(guarded(tokenizer), encoding="utf-8")
    arguments = command(folder, template)
    os.execvp(arguments[0], arguments)  # noqa: S606 - vLLM takes this process's place, and its signals


if __name__ == "__main__":
    main(Path(sys.argv[1]))
