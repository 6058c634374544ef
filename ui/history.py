"""Which part of a conversation the model sees: the newest whole turns that fit into its context.

The page has no tokenizer, and Prompt flow's answers report no token counts, so tokens are estimated.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.files import read_json
from ui.conversations import Turn

# Tokens per character, by its length in UTF-8. Measured with the tokenizer of Phi-3-mini
# (tests/ui/test_chat_history.py), whose 32 000 tokens cover little beyond Latin letters.
TOKENS_OF_BYTES = {1: 1.0, 2: 0.85, 3: 1.8, 4: 4.0}
TOKENS_OF_LETTER = 0.25  # ASCII letters and spaces
TOKENS_OF_TURN = 5  # of ChatML: <|im_start|>, the role, <|im_end|> and two line breaks; Phi-3 has 4
DEFAULT_CONTEXT = 4096  # Phi-3-mini-4k
ESTIMATE_SHARE = 0.85  # of the context is used: the estimate may be that much too low


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


def room_for_prompt(model: Path, max_tokens: int) -> int:
    """Tokens left for the prompt in the context of a model folder when the answer may take `max_tokens`.

    The context is `max_position_embeddings`: tokens of prompt and answer together.
    """
    try:
        context = int(read_json(model / "config.json")["max_position_embeddings"])
    except (OSError, ValueError, LookupError, TypeError):
        context = DEFAULT_CONTEXT
    return max(0, int((context - max_tokens) * ESTIMATE_SHARE))


def prompt_of(question: str, earlier: Sequence[Turn], system: str, room: int) -> Prompt:
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


def messages_of(system: str, turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as messages, after the system prompt if there is one."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return messages


def _size(turn: Turn) -> int:
    return estimated_tokens(turn.question) + estimated_tokens(turn.answer) + 2 * TOKENS_OF_TURN
