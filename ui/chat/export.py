"""A conversation as a file: Markdown to read, JSON Lines to train on."""

import re
from collections.abc import Sequence

from phi3flow.core.jsonl import to_line
from ui.rendering import label
from ui.store.history import messages_of
from ui.store.records import COMPLETE, Conversation, Turn


def as_markdown(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """The whole conversation, with a note after each incomplete answer.

    What people and models wrote stands in code blocks, which no text can leave: it cannot pose as a turn.
    """
    parts = [f"# {label(conversation.title)}"]
    if conversation.system:
        parts.append(f"## System prompt\n\n{_fenced(conversation.system)}")
    for turn in turns:
        note = "" if turn.status == COMPLETE else f"\n\n*({turn.status}: {turn.error or 'no end yet'})*"
        parts += [
            f"## You\n\n{_fenced(turn.question)}",
            f"## {label(turn.model)}\n\n{_fenced(turn.answer)}{note}",
        ]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def as_training_jsonl(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """One row that `phi3flow prepare` reads; empty if there is nothing to learn from.

    Leaves out incomplete answers and those with a thumb down.
    """
    good = [turn for turn in turns if turn.status == COMPLETE and turn.answer.strip() and turn.thumb != 0]
    messages = messages_of(conversation.system, good)
    return to_line({"messages": messages, "prompt_id": conversation.id}).decode() if good else ""
