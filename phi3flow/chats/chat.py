"""One chat, as every package uses it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# role and content; of an assistant also tool_calls, and weight 0 where the answer is context without loss.
Message = Mapping[str, Any]


def bears_loss(message: Message) -> bool:
    """Whether the model learns this message: an answer that nobody excluded."""
    return message["role"] == "assistant" and message.get("weight") != 0


@dataclass(frozen=True)
class Chat:
    """A valid chat: an optional system message, then user and assistant in turn; the assistant comes last.

    An assistant may greet before the first user. Where `tools` are given, assistants may call them and tool
    messages answer. The labels are not trained on. `prompt_id` is the owner's name for the row, `slice` the
    group that the evaluation reports, and rows of one `cluster` (a document, a user) are not independent of
    each other. `unanswerable` says whether the reference declines, None where its wording tells. `origin` is
    where the owner finds the row, as `FILE:LINE`.
    """

    messages: tuple[Message, ...]
    prompt_id: str | None = None
    slice: str | None = None
    cluster: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    unanswerable: bool | None = None
    origin: str = field(default="", compare=False)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the reference answer, as it is sent to an endpoint."""
        return tuple(
            {name: value for name, value in message.items() if name != "weight"}
            for message in self.messages[:-1]
        )

    @property
    def uses_tools(self) -> bool:
        """Whether tools are declared, called or answer: no flow and no endpoint of ours can ask that."""
        return bool(self.tools) or any(
            turn["role"] == "tool" or "tool_calls" in turn for turn in self.messages
        )

    @property
    def reference(self) -> str:
        """The last assistant message."""
        return str(self.messages[-1]["content"])

    def row(self) -> dict[str, Any]:
        """The chat as a row of JSON: what `prepare` writes."""
        more = {"tools": list(self.tools), "prompt_id": self.prompt_id}
        more |= {"slice": self.slice, "cluster": self.cluster}
        declared = {} if self.unanswerable is None else {"unanswerable": self.unanswerable}
        labels = {name: value for name, value in more.items() if value}
        return {"messages": list(self.messages)} | labels | declared
