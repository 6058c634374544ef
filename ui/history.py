"""What of a conversation the model is told: the newest turns that fit into its context, whole.

The page has no tokenizer and Prompt flow's answers carry no usage: tokens are estimated, and said to be.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ui.conversations import Turn

# Tokens of one character, by how many bytes UTF-8 takes for it; measured with the tokenizer of Phi-3-mini
# (tests/unit/test_history.py), whose 32 000 tokens know little beyond Latin letters.
TOKENS_OF_BYTES = {1: 1.0, 2: 0.85, 3: 1.8, 4: 4.0}
TOKENS_OF_LETTER = 0.25  # ASCII letters and spaces
TOKENS_OF_TURN = 4  # <|user|>, <|end|> and their line breaks
DEFAULT_CONTEXT = 4096  # Phi-3-mini-4k
ESTIMATE_SHARE = 0.85  # of the context is planned with: the estimate may be too low by so much


class Prompt(NamedTuple):
    """What the model is told, how many answered turns were too old for it, and its estimated tokens."""

    messages: list[dict[str, str]]
    left_out: int
    tokens: int


def estimated_tokens(text: str) -> int:
    """How many tokens `text` has, roughly: right within a fifth for European languages, Chinese and code."""
    return math.ceil(sum(_tokens_of(character) * count for character, count in Counter(text).items()))


def _tokens_of(character: str) -> float:
    if character.isascii() and (character.isalpha() or character == " "):
        return TOKENS_OF_LETTER
    return TOKENS_OF_BYTES[len(character.encode("utf-8", "replace"))]


def room_for_prompt(context: int, max_tokens: int) -> int:
    """Tokens that the prompt may have where the answer needs `max_tokens` of the model's context."""
    return max(0, int((context - max_tokens) * ESTIMATE_SHARE))


def prompt_of(question: str, earlier: Sequence[Turn], system: str, room: int) -> Prompt:
    """At most `room` tokens of question, system prompt and history; the question itself is always asked.

    A turn without an answer is no part of the conversation.
    """
    answered = [turn for turn in earlier if turn.answer]
    used = estimated_tokens(question) + estimated_tokens(system) + 2 * TOKENS_OF_TURN
    kept = len(answered)
    while kept and used + _size(answered[kept - 1]) <= room:
        kept -= 1
        used += _size(answered[kept])
    messages = [{"role": "system", "content": system}] if system else []
    for turn in answered[kept:]:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return Prompt([*messages, {"role": "user", "content": question}], kept, used)


def context_of(model: Path) -> int:
    """The tokens that question and answer have together, from a model folder's `config.json`."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, LookupError, TypeError):
        return DEFAULT_CONTEXT


def _size(turn: Turn) -> int:
    return estimated_tokens(turn.question) + estimated_tokens(turn.answer) + 2 * TOKENS_OF_TURN
