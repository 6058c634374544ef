"""A conversation as a file: Markdown to read, JSONL to train on."""

from collections.abc import Sequence

from phi3flow.core.jsonl import to_line
from ui.conversations import COMPLETE, Conversation, Turn


def as_markdown(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """The whole conversation; an answer that is not complete is marked as such."""
    parts = [f"# {conversation.title}"]
    if conversation.system:
        parts.append(f"*System prompt:* {conversation.system}")
    for turn in turns:
        end = "" if turn.status == COMPLETE else f"\n\n*({turn.status}: {turn.error or 'no end yet'})*"
        parts += [f"## You\n\n{turn.question}", f"## {turn.model}\n\n{turn.answer}{end}"]
    return "\n\n".join(parts) + "\n"


def as_training_jsonl(conversations: Sequence[tuple[Conversation, Sequence[Turn]]]) -> str:
    """One row a conversation, as `phi3flow prepare` reads it; none for those with nothing to learn from.

    Left out are answers that are not complete or that got a thumb down.
    """
    rows = [_row(conversation, turns) for conversation, turns in conversations]
    return "".join(to_line(row).decode() for row in rows if row["messages"])


def _row(conversation: Conversation, turns: Sequence[Turn]) -> dict[str, object]:
    good = [turn for turn in turns if turn.status == COMPLETE and turn.answer.strip() and turn.thumb != 0]
    messages = [{"role": "system", "content": conversation.system}] if good and conversation.system else []
    for turn in good:
        messages += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    return {"messages": messages, "prompt_id": conversation.id}
