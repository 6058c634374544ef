"""Metrics of structured answers: is it JSON, does it follow its schema, are these the right calls?

Plain functions like the user's own, and run like them. `tool_call_match` compares as the Berkeley Function
Calling Leaderboard does (Patil et al. 2025, https://gorilla.cs.berkeley.edu/leaderboard.html): the same
functions, in any order, and the same arguments; an answer in words is right where no call is wanted. It is
stricter in one point: the reference is the only right answer, so no other value of an argument counts.
"""

import json
from collections.abc import Mapping
from typing import Any


def json_valid(question: str, answer: str, reference: str) -> bool:
    """Whether the whole answer is JSON (RFC 8259), apart from white space around it."""
    return _parsed(answer) is not _NOTHING


def schema_valid(question: str, answer: str, reference: str, schema: Mapping[str, Any]) -> bool:
    """Whether the answer is JSON that follows the schema (draft 2020-12), formats included."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    value = _parsed(answer)
    formats = Draft202012Validator.FORMAT_CHECKER
    # An empty registry fetches nothing: a schema of a data file would make us send requests.
    checker = Draft202012Validator(schema, format_checker=formats, registry=Registry())
    return value is not _NOTHING and checker.is_valid(value)


def tool_call_match(question: str, answer: str, reference: str) -> bool:
    """Whether the answer calls what the reference calls: names and arguments equal, order free.

    Calls are a JSON list of `{"name", "arguments"}` or of OpenAI's `tool_calls`.
    """
    made, wanted = _calls(answer), _calls(reference)
    if made is None or wanted is None:
        return made is wanted
    return sorted(made) == sorted(wanted)


_NOTHING = object()


def _parsed(text: str) -> Any:
    """The JSON value, or _NOTHING."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return _NOTHING


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _calls(text: str) -> list[str] | None:
    """Each call as canonical JSON; None for an answer in words."""
    value = _parsed(text)
    if not isinstance(value, list) or not value:
        return None
    calls = [_call(each) for each in value]
    return None if None in calls else [call for call in calls if call is not None]


def _call(value: Any) -> str | None:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    if "arguments" not in function:
        return None
    arguments = function["arguments"]
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    # A call whose arguments were cut off is still a call, and equals no other.
    told = _plain(arguments) if isinstance(arguments, dict) else None
    return json.dumps([function["name"], told], sort_keys=True)


def _plain(value: Any) -> Any:
    """The value with 2.0 as 2, which are one number in JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
