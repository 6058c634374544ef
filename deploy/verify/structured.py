"""Whether the endpoint holds answers to a schema, and calls a tool where it must."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from deploy.verify.checks import Check, quoted
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Rejected, Sampling, openai_body

NAME = "schema"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 12}, "is_certain": {"type": "boolean"}},
    "required": ["answer", "is_certain"],
    "additionalProperties": False,
}
UNENFORCED = {"not": SCHEMA}  # no answer can be held to it
ARGUMENTS: dict[str, Any] = {
    "type": "object",
    "properties": {"certain": {"type": "boolean"}},
    "required": ["certain"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "note", "parameters": ARGUMENTS}}
REFUSAL_SECONDS = 30.0
ENOUGH = Sampling(max_tokens=256)  # for the longest answer that follows the schema, byte by byte


class _Asked(NamedTuple):
    """What is added to the question, once so that it must be refused; and the schema of what is read."""

    what: str
    refused: dict[str, Any]
    asked: dict[str, Any]
    read: Callable[[Any], str]  # of the message
    schema: dict[str, Any]


class _Given(NamedTuple):
    text: str
    is_cut: bool  # by the model's context


def check_structured(endpoint: Endpoint, question: Message) -> Check:
    """Asks once with a schema and once with a required tool.

    One that refuses both, or takes what nothing can follow, does not offer them: then nothing is wrong.
    """
    if endpoint.contract != "openai":
        return Check(NAME, "not-offered", f"contract {endpoint.contract} carries no schema and no tools")
    found = [_found(endpoint, question, each) for each in (_SCHEMA, _TOOL)]
    faults = [told for kept, told in found if kept is False]
    if faults:
        return Check(NAME, "fail", "; ".join(faults))
    told = "; ".join(told for _, told in found)
    return Check(NAME, "pass" if any(kept for kept, _ in found) else "not-offered", told)


def _found(endpoint: Endpoint, question: Message, asked: _Asked) -> tuple[bool | None, str]:
    """Whether the answer is right, None if that is not offered; and what was seen."""
    quick = replace(endpoint, timeout=min(endpoint.timeout, REFUSAL_SECONDS))
    try:
        _answer(quick, question, asked.refused, asked)
        return None, f"{asked.what}: one that nothing can follow is taken, too"
    except Rejected:
        pass  # as it must
    except EndpointError as error:
        return None, f"{asked.what}: what cannot be held is not refused: {error}"
    try:
        given = _answer(endpoint, question, asked.asked, asked)
    except Rejected as error:
        return None, f"{asked.what}: refused: {error}"
    except EndpointError as error:
        return False, f"{asked.what}: not answered: {error}"
    if given.is_cut:
        return None, f"{asked.what}: the model's context leaves no room for an answer"
    problem = _problem(given.text, asked.schema)
    return not problem, f"{asked.what}: {problem or 'valid'}"


def _answer(endpoint: Endpoint, question: Message, more: dict[str, Any], asked: _Asked) -> _Given:
    def read(reply: Any) -> _Given:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        tokens = usage.get("completion_tokens") or ENOUGH.max_tokens
        is_cut = choice.get("finish_reason") == "length" and tokens < ENOUGH.max_tokens
        return _Given(asked.read(choice["message"]), is_cut)

    return endpoint.exchange(openai_body(endpoint, [question], ENOUGH, False) | more, read)


def _problem(text: str, schema: dict[str, Any]) -> str:
    """Why a text is no JSON of the schema, or nothing."""
    from jsonschema import Draft202012Validator

    try:
        value = json.loads(text)
    except ValueError:
        return f"{quoted(text)} is not JSON"
    error = next(Draft202012Validator(schema).iter_errors(value), None)
    return "" if error is None else f"{quoted(text)} does not follow it: {error.message[:100]}"


def _read_call(message: Any) -> str:
    """The arguments of the call, or what was answered instead."""
    calls = message.get("tool_calls") or []
    return str(calls[0]["function"]["arguments"] if calls else message.get("content"))


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "found", "schema": schema, "strict": True},
        }
    }


def _tool_choice(name: str) -> dict[str, Any]:
    choice = {"type": "function", "function": {"name": name}}
    return {"tools": [TOOL], "tool_choice": choice}


_SCHEMA = _Asked(
    "a JSON schema",
    _format(UNENFORCED),
    _format(SCHEMA),
    lambda message: str(message["content"]),
    SCHEMA,
)
_TOOL = _Asked(
    "a required tool",
    _tool_choice("no_such_tool"),
    {"tools": [TOOL], "tool_choice": "required"},
    _read_call,
    ARGUMENTS,
)
