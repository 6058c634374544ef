"""One chat, as every package uses it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, str]


@dataclass(frozen=True)
class Chat:
    """A valid chat: an optional system message, then user and assistant in turn; the assistant comes last.

    The labels are not trained on. `prompt_id` is the owner's name for the row, `slice` the group that the
    evaluation reports, and rows of one `cluster` (a document, a user) are not independent of each other.
    """

    messages: tuple[Message, ...]
    prompt_id: str | None = None
    slice: str | None = None
    cluster: str | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the reference answer."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """The last assistant message."""
        return self.messages[-1]["content"]

    def row(self) -> dict[str, Any]:
        """The chat as a row of JSON: what `prepare` writes."""
        labels = {"prompt_id": self.prompt_id, "slice": self.slice, "cluster": self.cluster}
        return {"messages": list(self.messages)} | {name: label for name, label in labels.items() if label}
