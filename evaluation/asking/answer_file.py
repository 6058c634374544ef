"""A model's answers to a test file, one JSON object a line, from the direct runner or from the user.

    {"line": 1, "answer": "It is in Paris.", "seconds": 0.41, "tokens": 5, "prompt_sha256": "9f2c..."}
    {"prompt_id": "q-7", "answer": null, "error": "the endpoint did not answer in time"}

A row names its chat by `line`, the chat's number in the test file from 1, or by the chat's `prompt_id` (or
`id`); the first of these keys counts. `answer` is text, or null where the model failed; OpenAI's `tool_calls`
count instead where the answer has them. `seconds`, `tokens`
and `error` are optional, other keys are ignored, and rows may come in any order. A chat without a row has
failed. `prompt_sha256`, or `question`, the text of the last user turn, ties the row to its question: a row
that answers another one is refused.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from evaluation.scored_rows import Lazy, Record
from phi3flow.chats.chat import Chat, calls_text
from phi3flow.chats.turns import read_calls
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import (
    BadRows,
    RowError,
    any_text,
    appending,
    keep_rows,
    parse_object,
    write_jsonl,
)

SHAPE = '{"line": 1, "answer": "It is in Paris."}'
NOT_RECORDED = "no answer is recorded"
NAMES = ("line", "prompt_id", "id")
MOST = 1e12  # seconds, or tokens


class Answers(Lazy[Record]):
    """One record for each chat; `unchecked` rows name a line, and nothing ties them to its question."""

    unchecked = 0


def prompt_sha256(prompt: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of a prompt as compact JSON: `[["user","Where is it?"]]`, in UTF-8."""
    turns = [[turn["role"], turn["content"]] for turn in prompt]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def open_answers(path: Path, chats: Sequence[Chat]) -> Answers:
    """One record for each chat, in their order. Raises BadInput with every `file:line: field: what`."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    offsets, bad = array("q", [-1]) * len(chats), BadRows()
    by_prompt_id = cache(lambda: _by_prompt_id(chats))
    offset = unchecked = 0
    for number, line in enumerate(stream, 1):
        try:
            if line.strip():
                row = parse_object(line.removesuffix(b"\n"))
                _record(row)
                i = _position(row, len(chats), by_prompt_id)
                if offsets[i] >= 0:
                    raise RowError("line", f"line {i + 1} of the test file has a row already")
                unchecked += not _is_tied(row, chats[i], i)
                offsets[i] = offset
        except RowError as error:
            bad.add(str(path), number, error)
        offset += len(line)
    bad.require_none(SHAPE)

    def record(i: int) -> Record:
        if offsets[i] < 0:
            return Record(None, None, NOT_RECORDED)
        stream.seek(offsets[i])
        return _record(parse_object(stream.readline().removesuffix(b"\n")))

    answers = Answers(len(chats), record)
    answers.unchecked = unchecked
    return answers


def _is_tied(row: dict[str, Any], chat: Chat, i: int) -> bool:
    """Whether something ties the row to its question. Raises RowError for a row of another question."""
    other = f"is not that of line {i + 1} of the test file: these answers belong to another file"
    if (given := row.get("prompt_sha256")) is not None:
        if given != prompt_sha256(chat.prompt):
            raise RowError("prompt_sha256", other)
        return True
    if (asked := row.get("question")) is not None:
        last = next(turn["content"] for turn in reversed(chat.prompt) if turn["role"] == "user")
        if any_text("question", asked).split() != last.split():
            raise RowError("question", other)
        return True
    return row.get("line") is None


def _record(row: dict[str, Any]) -> Record:
    called = row.get("tool_calls")
    if "answer" not in row and not called:
        raise RowError("answer", "missing; null where the model failed")
    given = calls_text(read_calls("tool_calls", called)) if called else row["answer"]
    answer = None if given is None else any_text("answer", given)
    error = None if row.get("error") is None else any_text("error", row["error"])
    seconds, tokens = _number("seconds", row.get("seconds")), _number("tokens", row.get("tokens"))
    return Record(answer, seconds, error if answer is None else None, None if tokens is None else int(tokens))


def _number(field: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise RowError(field, f"must be a number from 0 to {MOST:g}")
    return float(value)


def _position(row: dict[str, Any], count: int, by_prompt_id: Callable[[], dict[str, int]]) -> int:
    """Which of the test file's `count` chats the row names, from 0. Raises RowError if none, or several."""
    name = next((name for name in NAMES if row.get(name) is not None), None)
    if name is None:
        raise RowError("line", "missing (or 'prompt_id')")
    value = row[name]
    if name == "line":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= count:
            raise RowError("line", f"must be a whole number from 1 to {count}, the test file's chats")
        return value - 1
    found = by_prompt_id().get(any_text(name, value))
    if found is None:
        raise RowError(name, f"no chat of the test file has the prompt_id {value[:40]!r}")
    if found < 0:
        raise RowError(name, f"several chats have the prompt_id {value[:40]!r}; name this one by 'line'")
    return found


def _by_prompt_id(chats: Sequence[Chat]) -> dict[str, int]:
    """Position by prompt_id; -1 where several chats have it."""
    found: dict[str, int] = {}
    for i, chat in enumerate(chats):
        if chat.prompt_id is not None:
            found[chat.prompt_id] = -1 if chat.prompt_id in found else i
    return found


def write_answers(path: Path, chats: Sequence[Chat], records: Sequence[Record]) -> None:
    """The records of all chats, in their order."""
    write_jsonl(path, (_row(i, chats[i], record) for i, record in enumerate(records)))


def _row(i: int, chat: Chat, record: Record) -> dict[str, Any]:
    return {"line": i + 1, **record._asdict(), "prompt_sha256": prompt_sha256(chat.prompt)}


@contextmanager
def appending_answers(path: Path) -> Iterator[Callable[[int, Chat, Record], None]]:
    """A function that appends the record of a chat, the `i`-th from 0, to the file."""
    with appending(path) as append:
        yield lambda i, chat, record: append(_row(i, chat, record))


def keep_answers(path: Path, lines: int) -> bytearray:
    """Remove failed and half-written rows from the file; return a 1 for each of `lines` that is answered."""
    answered = bytearray(lines)

    def is_answered(row: dict[str, Any]) -> bool:
        if row["answer"] is not None:
            answered[row["line"] - 1] = 1
        return row["answer"] is not None

    keep_rows(path, is_answered)
    return answered
