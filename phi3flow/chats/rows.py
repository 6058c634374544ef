"""Read chats from JSONL files and from the Hugging Face hub; errors are `file:line: field: what`.

A row has one of these shapes (examples in docs/data.md):

    {"messages": [{"role": "system|user|assistant", "content": text}, ..], "prompt_id"?, "slice"?, "cluster"?}
    {"prompt": ignored, "messages": as above, ..}                          ULTRACHAT
    {"question" or "instruction", "input"?, "answer" or "output", ..}      one question, one answer
"""

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.chats import hub
from phi3flow.chats.chat import Chat, Message
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import (
    MAX_LINE_BYTES,
    BadRows,
    RowError,
    any_text,
    json_name,
    lines_of,
    parse_object,
    short,
)
from phi3flow.core.lineage import sha256_of

NO_CHATS_HINT = "write one JSON object per line; docs/data.md shows the shapes"
_ROLES = ("system", "user", "assistant")
_QUESTION, _ANSWER = ("question", "instruction"), ("answer", "output")
_INVISIBLE = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]*")


class Source(NamedTuple):
    """A file or data set with its hash. Each call of `lines` starts at the first line."""

    kind: str
    name: str
    sha256: str
    lines: Callable[[], Iterator[bytes]]


def open_source(source: str, kind: str = "chats") -> Source:
    """Find and hash a file or a hub data set; `kind` is its name in the manifest.

    Raises BadInput if there is none, Phi3flowError if the hub cannot be reached.
    """
    path = Path(source)
    if path.is_file():
        return Source(kind, source, sha256_of(path), lambda: lines_of(path))
    if path.is_dir():
        raise BadInput(f"{source}: is a folder", hint=f"name its files: {shlex.quote(source)}/*.jsonl")
    if hub.looks_like_id(source):
        data = hub.load(source)
        return Source(kind, source, hub.sha256_of_rows(data), lambda: hub.lines(data))
    raise BadInput(f"{source}: no such file", hint=f"give a JSONL file or a hub id such as {hub.EXAMPLE}")


def read_chats(source: Source, bad: BadRows) -> Iterator[Chat]:
    """Yield the valid chats; the other rows are added to `bad`. Blank lines are skipped."""
    for number, line in enumerate(source.lines(), 1):
        if len(line) <= MAX_LINE_BYTES and not line.strip():
            continue
        try:
            yield parse_row(line)
        except RowError as error:
            bad.add(source.name, number, error)


def load_chats(path: Path) -> list[Chat]:
    """All chats of a JSONL file, in order. Raises BadInput for any bad row and for a file without chats."""
    return list(iterate_chats(path))


def iterate_chats(path: Path) -> Iterator[Chat]:
    """Like `load_chats`, one at a time; BadInput is raised after the last one."""
    if not path.exists():
        raise BadInput(f"{path}: no such file", hint="check the path; phi3flow prepare writes test.jsonl")
    bad, found = BadRows(), False
    for chat in read_chats(open_source(str(path)), bad):
        found = True
        yield chat
    bad.require_none()
    if not found:
        raise BadInput(f"{path}: no chats in it", hint=NO_CHATS_HINT)


def parse_row(line: bytes) -> Chat:
    """Read one line without its line feed. Raises RowError.

    Content is normalised to NFC, so that two encodings of one character are the same text for the tokenizer
    and for the split. Not to NFKC, which changes the content (x² -> x2, ½ -> 1/2).
    """
    row = parse_object(line)
    messages = _messages(row)
    _check_turns(messages)
    return Chat(messages, *(_label(row, name) for name in ("prompt_id", "slice", "cluster")))


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
    first = int(roles[0] == "system")
    for position, role in enumerate(roles[first:]):
        expected = _ROLES[1 + position % 2]
        if role != expected:
            raise RowError(f"messages[{first + position}].role", f"is {role}, expected {expected}")
    if roles[-1] != "assistant":
        raise RowError(
            f"messages[{len(roles) - 1}].role", "is user, but a chat ends with the assistant's answer"
        )


def _label(row: dict[str, Any], name: str) -> str | None:
    return None if row.get(name) is None else _text(name, row[name])


def _text(field: str, value: Any) -> str:
    text = any_text(field, value)
    if "\0" in text:
        raise RowError(field, "contains a NUL character")
    if _INVISIBLE.fullmatch(text):
        raise RowError(field, "is empty")
    return unicodedata.normalize("NFC", text)
