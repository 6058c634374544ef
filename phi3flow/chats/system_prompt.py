"""The system prompt of a model's training data: found in the rows, recorded in the model's manifest."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from phi3flow.chats.chat import Message
from phi3flow.core.lineage import read_manifest

FIELD = "system_prompt"  # of the manifest beside a model


def shared_system_prompt(chats: Iterable[tuple[Message, ...]]) -> str:
    """The system prompt that more than half of the chats have; empty if they share none."""
    counts = Counter(messages[0]["content"] if messages[0]["role"] == "system" else "" for messages in chats)
    shared, rows = next(iter(counts.most_common(1)), ("", 0))
    return str(shared) if 2 * rows > counts.total() else ""


def recorded_system_prompt(model: Path) -> str:
    """What the manifest of a model folder says; empty if it says nothing."""
    recorded = (read_manifest(model) or {}).get(FIELD)
    return recorded if isinstance(recorded, str) else ""
