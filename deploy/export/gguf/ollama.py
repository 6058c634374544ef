"""A Modelfile: how Ollama is to prompt the GGUF file beside it, and when an answer ends."""

import json
from typing import TYPE_CHECKING

from deploy.export.turns import Around, Turns
from phi3flow.chats.end_of_turn import stop_token_ids

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PreTrainedTokenizerBase

QUOTES = '"""'


def modelfile(
    file: str,
    tokenizer: "PreTrainedTokenizerBase",
    turns: Turns,
    *,
    context: int,
    system: str,
    swallowing: "Collection[str]",
) -> str:
    """For `ollama create`. `system` is the training data's prompt, else the template's own is taken.

    Ollama reads special tokens in what people write: no template of it can break them up.
    """
    stops = tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer))
    lines = [
        f"FROM ./{file}",
        f"TEMPLATE {QUOTES}{_template(turns, swallowing)}{QUOTES}",
        *([f"SYSTEM {QUOTES}{system or turns.system}{QUOTES}"] if system or turns.system else []),
        f"PARAMETER num_ctx {context}",
        "PARAMETER temperature 0",
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
    ]
    return "\n".join(lines) + "\n"


def _template(turns: Turns, swallowing: "Collection[str]") -> str:
    """In Go's template language; Ollama gives it the system prompt as the first message."""
    cases = "".join(
        f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}{_turn(around, swallowing)}'
        for number, (role, around) in enumerate(turns.around.items())
    )
    return f"{{{{ range .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{_kept(turns.answer, swallowing)}"


def _turn(around: Around, swallowing: "Collection[str]") -> str:
    return f"{_kept(around.before, swallowing)}{{{{ .Content }}}}{_kept(around.behind, swallowing)}"


def _kept(text: str, swallowing: "Collection[str]") -> str:
    """Without white space behind tokens whose own tokenizer drops it; llama.cpp's would keep it."""
    for token in swallowing:
        head, found, tail = text.partition(token)
        text = head + found + tail.lstrip() if found else text
    return text
