"""Read one line of a chat file: a `Chat`, or the wrong field and the reason.

Accepted shapes (examples in docs/data.md):

    {"messages": [{"role": "system|user|assistant", "content": text}, ..], "prompt_id"?, "slice"?, "cluster"?}
    {"prompt": ignored, "messages": as above, ..}                          ULTRACHAT
    {"question" or "instruction", "input"?, "answer" or "output", ..}      one question, one answer
"""

import re
import unicodedata
from typing import Any

from phi3flow.chats.chat import Chat, Message
from phi3flow.core.jsonl import RowError, any_text, json_name, parse_object, short

_ROLES = ("system", "user", "assistant")
_QUESTION, _ANSWER = ("question", "instruction"), ("answer", "output")
_INVISIBLE = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]*")


def parse_row(line: bytes) -> Chat:
    """Read one line without its line feed. Raises RowError.

    Content is normalised to NFC, so that two encodings of one character are the same text for the tokenizer
    and for the split. Not to NFKC, which changes the content (x² -> x2, ½ -> 1/2).
    """
    row = parse_object(line)
    messages = _messages(row)
    _check_turns(messages)
    return Chat(messages, *(_label(row, name) for name in ("prompt_id", "slice", "cluster")))


def prompt_of(row: dict[str, Any]) -> tuple[Message, ...]:
    """The `question` or the `messages` of a row that asks and has no reference answer. Raises RowError."""
    if "messages" not in row:
        if "question" not in row:
            raise RowError("question", "missing (or 'messages')")
        return ({"role": "user", "content": _text("question", row["question"])},)
    if "question" in row:
        raise RowError("question", "given together with 'messages'; keep one of them")
    messages = _messages(row)
    _check_order(messages)
    if not messages or messages[-1]["role"] != "user":
        raise RowError("messages", "must end with the user's question")
    return messages


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    if "messages" not in row:
        return _question_and_answer(row)
    messages = row["messages"]
    if not isinstance(messages, list):
        raise RowError("messages", f"must be a list, not {json_name(messages)}")
    return tuple(_message(f"messages[{i}]", message) for i, message in enumerate(messages))


def _message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise RowError(where, f"must be an object, not {json_name(message)}")
    role = message.get("role")
    if role not in _ROLES:
        shown = short(role) if isinstance(role, str) else json_name(role)
        raise RowError(f"{where}.role", f"is {shown}; known: " + ", ".join(_ROLES))
    return {"role": role, "content": _text(f"{where}.content", message.get("content"))}


def _question_and_answer(row: dict[str, Any]) -> tuple[Message, ...]:
    asked, answered = _only_one(row, _QUESTION), _only_one(row, _ANSWER)
    if asked is None and answered is None:
        keys = ", ".join(short(key) for key in list(row)[:8]) or "none"
        raise RowError("row", f"has neither 'messages' nor 'question' and 'answer' (keys: {keys})")
    if asked is None or answered is None:
        missing = _QUESTION if asked is None else _ANSWER
        raise RowError(missing[0], f"missing (or '{missing[1]}')")
    question = _text(asked, row[asked])
    if row.get("input") not in (None, ""):
        question += "\n\n" + _text("input", row["input"])
    return (
        {"role": "user", "content": question},
        {"role": "assistant", "content": _text(answered, row[answered])},
    )


def _only_one(row: dict[str, Any], names: tuple[str, str]) -> str | None:
    present = [name for name in names if name in row]
    if len(present) > 1:
        raise RowError(present[1], f"given together with '{present[0]}'; keep one of them")
    return present[0] if present else None


def _check_turns(messages: tuple[Message, ...]) -> None:
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise RowError("messages", "has no assistant turn, so there is no answer to learn")
    _check_order(messages)
    if roles[-1] != "assistant":
        raise RowError(
            f"messages[{len(roles) - 1}].role", "is user, but a chat ends with the assistant's answer"
        )


def _check_order(messages: tuple[Message, ...]) -> None:
    """A system message or none, then user and assistant in turn."""
    roles = [message["role"] for message in messages]
    first = int(roles[:1] == ["system"])
    for position, role in enumerate(roles[first:]):
        expected = _ROLES[1 + position % 2]
        if role != expected:
            raise RowError(f"messages[{first + position}].role", f"is {role}, expected {expected}")


def _label(row: dict[str, Any], name: str) -> str | None:
    return None if row.get(name) is None else _text(name, row[name])


def _text(field: str, value: Any) -> str:
    text = any_text(field, value)
    if "\0" in text:
        raise RowError(field, "contains a NUL character")
    if _INVISIBLE.fullmatch(text):
        raise RowError(field, "is empty")
    return unicodedata.normalize("NFC", text)
