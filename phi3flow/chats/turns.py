"""One message of a row, however OpenAI, Gemini, ShareGPT or a chat export spell it, as role and content."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from phi3flow.chats.fields import is_absent, plain, unfolded
from phi3flow.core.jsonl import RowError, any_text, json_name, short

ROLES = ("system", "user", "assistant", "tool")
_ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "text", "message", "parts")
_SPELLED_ROLES = {
    "system": "system developer",
    "user": "user human prompter customer client",
    "assistant": "assistant gpt chatgpt bot chatbot model ai agent",
    "tool": "tool observation",
}
_ROLE_OF = MappingProxyType({word: role for role, words in _SPELLED_ROLES.items() for word in words.split()})
_CALLS = ("function_call", "tool_call")  # ShareGPT's roles of an assistant that calls a tool
_REFUSED = {
    "function_call": "OpenAI's older form of tool_calls; write tool_calls",
    "training_detail": "loss on parts of a message is not supported; set weight or train for all of it",
    "train_detail": "loss on parts of a message is not supported; set weight or train for all of it",
}
_INVISIBLE = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]*")
Count = Callable[[str], None]  # called with each field that is not used


def read_turn(where: str, turn: Any, unused: Count) -> dict[str, Any]:
    """A message with role and content, and weight, tool_calls or tool_call_id where it has them.

    `unused` is called with the name of each field that means nothing here. An empty system message keeps its
    empty content. Raises RowError.
    """
    if not isinstance(turn, Mapping):
        raise RowError(where, f"must be an object, not {json_name(turn)}")
    fields = {plain(str(key)): (str(key), value) for key, value in turn.items()}
    role_key, text_key = _first(fields, _ROLE_KEYS), _first(fields, _TEXT_KEYS)
    spelled = fields[role_key][1] if role_key in fields else None
    role = _role(f"{where}.{role_key}", spelled)
    content = fields[text_key][1] if text_key in fields else None
    message: dict[str, Any] = {"role": role}
    if isinstance(spelled, str) and plain(spelled) in _CALLS:
        message |= {"content": "", "tool_calls": _shared_calls(f"{where}.{text_key}", content)}
    else:
        message["content"] = _content(f"{where}.{text_key}", role, content, fields)
    message |= _marks(where, role, fields)
    known = {role_key, text_key, "weight", "train", "training", "tool_calls", "tool_call_id"}
    for key, (own, value) in fields.items():
        if key not in known and not is_absent(value) and value not in ([], False):
            if key in _REFUSED:
                raise RowError(f"{where}.{own}", _REFUSED[key])
            unused(f"messages[].{own}")
    return message


def is_turn(value: Any) -> bool:
    """Whether this is a message of a known role, rather than a row with a column of that name."""
    if not isinstance(value, Mapping):
        return False
    fields = {plain(str(key)): spelled for key, spelled in value.items()}
    role = fields.get(_first(fields, _ROLE_KEYS))
    return isinstance(role, str) and plain(role) in _ROLE_OF and _first(fields, _TEXT_KEYS) in fields


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((key for key in keys if key in fields), keys[0])


def _role(where: str, spelled: Any) -> str:
    if isinstance(spelled, str):
        word = plain(spelled)
        if word in _CALLS:
            return "assistant"
        if word in _ROLE_OF:
            return _ROLE_OF[word]
    shown = short(spelled) if isinstance(spelled, str) else json_name(spelled)
    raise RowError(where, f"is {shown}; known: " + ", ".join(ROLES))


def _content(where: str, role: str, content: Any, fields: Mapping[str, Any]) -> str:
    calls = not is_absent(fields.get("tool_calls", ("", None))[1])
    if is_absent(content) and (role == "system" or (calls and content is None) or (calls and content == "")):
        return ""
    text = text_of(where, joined_parts(where, content))
    if _INVISIBLE.fullmatch(text) and role != "tool":
        raise RowError(where, "is empty")
    return text


def joined_parts(where: str, content: Any) -> Any:
    """A list of text parts as one text; other content as it is. Raises RowError for other parts."""
    if not isinstance(content, list):
        return content
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, Mapping) else json_name(part)
        if not isinstance(part, Mapping) or kind not in ("text", None):
            raise RowError(f"{where}[{i}].type", f"is {short(str(kind))}; a Phi-3 reads only parts of text")
        texts.append(any_text(f"{where}[{i}].text", part.get("text")))
    return "".join(texts)


def _marks(where: str, role: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """weight 0 for an answer without loss; what tools were called, or which call a tool answers."""
    given = {key: (own, value) for key, (own, value) in fields.items() if not is_absent(value)}
    marks: dict[str, Any] = {}
    for key in ("weight", "train", "training"):
        if key in given and not _counts(f"{where}.{given[key][0]}", given[key][1]) and role == "assistant":
            marks["weight"] = 0
    if given.get("tool_calls", ("", []))[1]:
        marks["tool_calls"] = read_calls(f"{where}.tool_calls", unfolded(given["tool_calls"][1]))
    if "tool_call_id" in given:
        marks["tool_call_id"] = any_text(f"{where}.tool_call_id", given["tool_call_id"][1])
    return marks


def _counts(where: str, value: Any) -> bool:
    """Whether an answer counts toward the loss."""
    number = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    try:
        share = float(number)
    except (TypeError, ValueError):
        raise RowError(where, f"must be 0 or 1, not {json_name(value)}") from None
    if share not in (0, 1):
        raise RowError(where, f"is {share:g}; only 0 (context without loss) and 1 are supported")
    return bool(share)


def counts_toward_loss(where: str, value: Any) -> bool:
    """The same for a mark of a whole row; an absent one counts."""
    return is_absent(value) or _counts(where, value)


def read_calls(where: str, calls: Any) -> list[dict[str, Any]]:
    """OpenAI's `tool_calls` as messages have them. Raises RowError."""
    if not isinstance(calls, list):
        raise RowError(where, f"must be a list, not {json_name(calls)}")
    return [_call(f"{where}[{i}]", call) for i, call in enumerate(calls)]


def _call(where: str, call: Any) -> dict[str, Any]:
    """A call as templates want it: arguments as an object, not as OpenAI's text of JSON."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"{where}.function.name", "missing")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise RowError(f"{where}.function.arguments", "is not JSON") from None
    if not isinstance(arguments, Mapping):
        raise RowError(f"{where}.function.arguments", f"must be an object, not {json_name(arguments)}")
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return made | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})


def _shared_calls(where: str, value: Any) -> list[dict[str, Any]]:
    found = unfolded(value)
    return read_calls(where, found if isinstance(found, list) else [found])


def text_of(where: str, value: Any) -> str:
    """Text in NFC, so that two encodings of one character are the same for the tokenizer and the split.

    Not in NFKC, which changes the content (x² -> x2, ½ -> 1/2).
    """
    text = any_text(where, value)
    if "\0" in text:
        raise RowError(where, "contains a NUL character")
    return unicodedata.normalize("NFC", text)


def full_text(where: str, value: Any) -> str:
    """Text with something visible in it."""
    text = text_of(where, value)
    if _INVISIBLE.fullmatch(text):
        raise RowError(where, "is empty")
    return text
