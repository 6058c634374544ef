"""Prompts and answers that judge an export: those of training, and one near the end of the context."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.chats.chat_template import encode_prompt
from phi3flow.core.console import say
from phi3flow.core.jsonl import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PROBES = "probes.jsonl"
LONG = "long-context"
LONG_TOKENS = 3500  # others' exports answer nonsense from about 2 000 on
SENTENCE = "Item {} of the list is kept in room {} of the east wing, and nobody has asked for it yet. "
QUESTION = "What is kept in the east wing?"
FLOAT32 = "float32"


def recorded_answers(
    folder: Path, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase"
) -> list[dict[str, Any]]:
    """Rows of probes.jsonl, in fp32: the folder's own if they are, else what its model answers now."""
    from training.models.loading import load_model
    from training.models.probes import answer_greedily, fixed_prompts, most_tokens, probe_rows

    own = list(read_jsonl(folder / PROBES)) if (folder / PROBES).is_file() else []
    known = [row for row in own if row.get("dtype", FLOAT32) == FLOAT32 and row["id"] != LONG]
    prompts = {row["id"]: row["messages"] for row in own} or fixed_prompts(tokenizer)
    asked = {name: prompts[name] for name in prompts if name not in {row["id"] for row in known}}
    model = load_model(str(folder))
    limit = most_tokens(model)
    asked[LONG] = long_prompt(tokenizer, room(config, limit))
    say(f"asking the model {len(asked)} prompts")
    answers = answer_greedily(model, tokenizer, asked)
    return known + probe_rows(tokenizer, asked, limit, answers, None, dtype=model.dtype)


def room(config: "PreTrainedConfig", limit: int) -> int:
    """Tokens of the long prompt: what the context leaves beside an answer, and no more than are of use."""
    from training.models.loading import served_context

    return min(LONG_TOKENS, served_context(config) - 2 * limit)


def long_prompt(tokenizer: "PreTrainedTokenizerBase", tokens: int) -> list[dict[str, str]]:
    """A user's message of nearly as many tokens: a list of rooms, and a question."""
    sentences = ""
    for number in range(1, tokens):
        longer = sentences + SENTENCE.format(number, 100 + number % 7)
        if len(encode_prompt(tokenizer, _asking(longer))) > tokens:
            break
        sentences = longer
    return _asking(sentences)


def _asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text + QUESTION}]
