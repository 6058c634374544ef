"""Asking a chat with tools: contract openai alone carries them, and no flow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phi3flow.chats.chat import calls_text
from phi3flow.chats.tools import declared
from phi3flow.phi3_contract import Endpoint, Reply, Sampling, Unsupported, openai_body

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

TOOL_CONTRACT = "openai"


def ask_chat(endpoint: Endpoint, chat: "Chat", sampling: Sampling) -> Reply:
    """The answer to a chat's prompt; its calls, if it has any, as `calls_text`. Raises EndpointError."""
    if not chat.uses_tools:
        return endpoint.ask(chat.prompt, sampling)
    if endpoint.contract != TOOL_CONTRACT:
        raise Unsupported(f"contract {endpoint.contract} carries no tools")
    body = openai_body(endpoint, [*_sent(chat.prompt)], sampling, False)
    tools = [declared(tool) for tool in chat.tools]
    return endpoint.exchange(body | ({"tools": tools} if tools else {}), _reply)


def _sent(prompt: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The turns as OpenAI wants them: arguments as text, and an id for each call and its result."""
    waiting: list[str] = []
    for at, turn in enumerate(prompt):
        sent: dict[str, Any] = dict(turn)
        if "tool_calls" in turn:
            calls = [_call(call, f"call_{at}_{i}") for i, call in enumerate(turn["tool_calls"])]
            waiting = [call["id"] for call in calls]
            sent |= {"tool_calls": calls, "content": turn["content"] or None}
        elif turn["role"] == "tool":
            own = turn.get("tool_call_id")
            answered = own if own in waiting or not waiting else waiting[0]
            waiting = [one for one in waiting if one != answered]
            sent["tool_call_id"] = answered or f"call_{at}"
        yield sent


def _call(call: Mapping[str, Any], identity: str) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    told = {"name": function["name"], "arguments": arguments}
    return {"id": call.get("id") or identity, "type": "function", "function": told}


def _reply(reply: Any) -> Reply:
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    message = choice["message"]
    calls = [_read(call["function"]) for call in message.get("tool_calls") or []]
    text = calls_text(calls) if calls else message["content"]
    if not isinstance(text, str):
        raise TypeError("the answer is neither text nor calls")
    return Reply(
        text, choice.get("finish_reason"), usage.get("prompt_tokens"), usage.get("completion_tokens")
    )


def _read(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call as rows have it; arguments that are cut, or no JSON, stay text."""
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        arguments = function["arguments"]
    return {"function": {"name": function["name"], "arguments": arguments}}
