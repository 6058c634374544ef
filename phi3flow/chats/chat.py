"""What every room reads: one chat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, str]


@dataclass(frozen=True)
class Chat:
    """A valid chat: [system], then user and assistant in turn, ending with the assistant.

    None of the labels is learned: `slice` is what evaluation groups by, `prompt_id` names the row for its
    owner, rows of one `cluster` (a document, a user) are not independent of one another.
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
        """The chat as `prepare` writes it."""
        labels = {"prompt_id": self.prompt_id, "slice": self.slice, "cluster": self.cluster}
        return {"messages": list(self.messages)} | {name: label for name, label in labels.items() if label}
