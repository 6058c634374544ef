"""Which part of a conversation the model sees: the newest whole turns that fit into its context.

The page has no tokenizer, and Prompt flow's answers report no token counts, so tokens are estimated.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from phi3flow.core.files import read_json

# Tokens per character, by its length in UTF-8. Measured with the tokenizer of Phi-3-mini
# (tests/ui/test_chat_history.py), whose 32 000 tokens cover little beyond Latin letters.
TOKENS_OF_BYTES = {1: 1.0, 2: 0.85, 3: 1.8, 4: 4.0}
TOKENS_OF_LETTER = 0.25  # ASCII letters and spaces
TOKENS_OF_TURN = 5  # of ChatML: <|im_start|>, the role, <|im_end|> and two line breaks; Phi-3 has 4
DEFAULT_CONTEXT = 4096  # Phi-3-mini-4k
ESTIMATE_SHARE = 0.85  # of the context is used: the estimate may be that much too low


class Answered(Protocol):
    """A question and its answer, as a conversation of the page or of the terminal keeps them."""

    @property
    def question(self) -> str: ...

    @property
    def answer(self) -> str: ...


class Prompt(NamedTuple):
    """What the model sees, and how many of the oldest answered turns were dropped."""

    messages: list[dict[str, str]]
    dropped: int


def estimated_tokens(text: str) -> int:
    """Estimated tokens of `text`: within a fifth for European languages, Chinese and code."""
    return math.ceil(sum(_tokens_of(character) * count for character, count in Counter(text).items()))


def _tokens_of(character: str) -> float:
    if character.isascii() and (character.isalpha() or character == " "):
        return TOKENS_OF_LETTER
    return TOKENS_OF_BYTES[len(character.encode("utf-8", "replace"))]


def context_of(model: Path) -> int:
    """The context in which a model folder is served: tokens of prompt and answer together.

    With longrope scaling that is the original one, as in `training.models.loading.served_context`.
    """
    try:
        config = read_json(model / "config.json")
        longest = int(config["max_position_embeddings"])
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        scaled = "longrope" in (scaling.get("rope_type"), scaling.get("type"))
        return int(config["original_max_position_embeddings"]) if scaled else longest
    except (OSError, ValueError, LookupError, TypeError):
        return DEFAULT_CONTEXT


def room_for_prompt(context: int, max_tokens: int) -> int:
    """Tokens left for the prompt in a context when the answer may take `max_tokens`."""
    return max(0, int((context - max_tokens) * ESTIMATE_SHARE))


def prompt_of(question: str, earlier: Sequence[Answered], system: str, room: int) -> Prompt:
    """At most `room` estimated tokens of question, system prompt and history; never drops the question.

    Turns without an answer do not count.
    """
    answered = [turn for turn in earlier if turn.answer]
    used = estimated_tokens(question) + estimated_tokens(system) + 2 * TOKENS_OF_TURN
    dropped = len(answered)
    while dropped and used + _size(answered[dropped - 1]) <= room:
        dropped -= 1
        used += _size(answered[dropped])
    return Prompt([*messages_of(system, answered[dropped:]), {"role": "user", "content": question}], dropped)


def messages_of(system: str, turns: Sequence[Answered]) -> list[dict[str, str]]:
    """Turns as messages, after the system prompt if there is one."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return messages


def _size(turn: Answered) -> int:
    return estimated_tokens(turn.question) + estimated_tokens(turn.answer) + 2 * TOKENS_OF_TURN
