"""Tools, calls and their results, in OpenAI's shape: what every reader of a chat agrees on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from phi3flow.chats.chat import Message

Tools = Sequence[Mapping[str, Any]]
WRITTEN_CALLS = ("<tool_call>", "<|tool_call|>")  # how models write calls, which rows give as `tool_calls`
TOLD = ("name", "description", "parameters")  # of a function; `strict` is for the server that enforces it


def declared(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as `{"type": "function", "function": {..}}`, also where a row has the function alone."""
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        function = {"name": str(function)}
    told = {name: function[name] for name in TOLD if function.get(name) is not None}
    return {"type": "function", "function": told}


def named(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages, each result with the `name` of the tool that was called, if its call is known by its id.

    Some templates write the name.
    """
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call.get("id", "")] = call["function"]["name"]
        name = names.get(message.get("tool_call_id", ""))
        yield {**message, "name": name} if name and message["role"] == "tool" else message
