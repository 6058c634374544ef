"""One chat, as every package uses it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# role and content; of an assistant also tool_calls, and weight 0 where the answer is context without loss.
Message = Mapping[str, Any]


def bears_loss(message: Message) -> bool:
    """Whether the model learns this message: an answer that nobody excluded."""
    return message["role"] == "assistant" and message.get("weight") != 0


def calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """The calls of an answer as text: a JSON list of `{"name", "arguments"}` on one line."""
    told = [{name: call["function"][name] for name in ("name", "arguments")} for call in calls]
    return json.dumps(told, ensure_ascii=False)


@dataclass(frozen=True)
class Chat:
    """A valid chat: an optional system message, then user and assistant in turn; the assistant comes last.

    An assistant may greet before the first user. Where `tools` are given, assistants may call them, tool
    messages answer, and the chat may end with a call. The labels are not trained on. `prompt_id` is the
    owner's name for the row, `slice` the group that the evaluation reports, and rows of one `cluster` (a
    document, a user) are not independent of each other. `unanswerable` says whether the reference declines,
    None where its wording tells. `schema` is the JSON schema that the answer is to follow. `origin` is where
    the owner finds the row, as `FILE:LINE`.
    """

    messages: tuple[Message, ...]
    prompt_id: str | None = None
    slice: str | None = None
    cluster: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    unanswerable: bool | None = None
    schema: Mapping[str, Any] | None = None
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
        """Whether tools are declared, called or answer: contract openai alone can ask that, and no flow."""
        return bool(self.tools) or any(
            turn["role"] == "tool" or "tool_calls" in turn for turn in self.messages
        )

    @property
    def reference(self) -> str:
        """The last assistant message: its calls as `calls_text` if it calls, else its words."""
        last = self.messages[-1]
        return calls_text(last["tool_calls"]) if "tool_calls" in last else str(last["content"])

    def row(self) -> dict[str, Any]:
        """The chat as a row of JSON: what `prepare` writes."""
        more = {"tools": list(self.tools), "prompt_id": self.prompt_id}
        more |= {"slice": self.slice, "cluster": self.cluster}
        declared: dict[str, Any] = {} if self.unanswerable is None else {"unanswerable": self.unanswerable}
        labels = {name: value for name, value in more.items() if value}
        if self.schema is not None:
            named = {"name": "answer", "schema": self.schema}
            declared["response_format"] = {"type": "json_schema", "json_schema": named}
        return {"messages": list(self.messages)} | labels | declared
