"""The shapes of rows: a table with one entry for each, and the reader that turns a row into messages.

To accept another shape, add a word to QUESTIONS or ANSWERS (field_names.py), or an entry to SHAPES.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from phi3flow.chats.chat import Chat
from phi3flow.chats.field_names import (
    ANSWERS,
    CHATS,
    LABELS,
    NAMES,
    PREFERENCES,
    QUESTIONS,
    RESPONSE_FORMAT,
    UNANSWERABLE,
)
from phi3flow.chats.fields import Columns, Fields, unfolded
from phi3flow.chats.question_rows import is_messages, question_and_answer, read_turns, squad, system_of
from phi3flow.chats.repairs import MARKS_INSIDE, Repair, has_marks_inside, repaired
from phi3flow.chats.tools import WRITTEN_CALLS, declared
from phi3flow.chats.turns import counts_toward_loss, full_text
from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.jsonl import RowError, json_name, short

_NO_PLACE = "has no place beside {beside}; put it into a message, or choose: --columns system={name}"
_REFUSED = {
    "history": _NO_PLACE,
    "context": _NO_PLACE,
    "input": _NO_PLACE,
    "functions": "is OpenAI's older form of tools; write tools and tool_calls",
}


@dataclass
class Read:
    """A chat and what was done to its row: repairs, names of fields that were not used, what is odd."""

    chat: Chat
    repairs: list[Repair]
    unused: list[str]
    notes: list[str]


class Shape(NamedTuple):
    """`tells` names the field that shows the shape, or None; `read` takes the messages."""

    tells: Callable[[Fields], str | None]
    read: Callable[[Fields, list[str]], list[dict[str, Any]]]


def parse_columns(given: str) -> dict[str, str]:
    """`question=Frage,answer=Antwort` as our names and the file's. Raises BadInput."""
    columns: dict[str, str] = {}
    for pair in filter(None, given.split(",")):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if ours not in NAMES or ours in columns:
            what = "stands twice" if ours in columns else f"unknown ({nearest(ours, NAMES)})"
            raise BadInput(f"--columns: {ours}: {what}", hint="--columns question=COLUMN,answer=COLUMN")
        if not equals or not theirs:
            raise BadInput(f"--columns: {ours}: names no column", hint=f"--columns {ours}=COLUMN")
        columns[ours] = theirs
    return columns


def read_row(row: Mapping[str, Any], columns: Columns | None = None) -> Read:
    """A row of any shape as a chat. Raises RowError with the wrong field and the reason."""
    fields, unused = Fields(row, columns or {}), []  # type: tuple[Fields, list[str]]
    _refuse_preferences(fields)
    shape = next((shape for shape in SHAPES if shape.tells(fields)), None)
    if shape is None:
        raise _unknown(fields)
    messages = system_of(fields) + shape.read(fields, unused)
    tools = _tools(fields)
    _check_marks(fields)
    ids: list[Repair] = []
    prompt_id, part, cluster = (read_label(fields, name, ids) for name in LABELS)
    schema = _schema(fields)
    unanswerable = read_flag(fields, UNANSWERABLE)
    _refuse_what_is_left(fields, shape)
    messages, repairs = repaired(messages)
    chat = Chat(tuple(messages), prompt_id, part, cluster, tools, unanswerable, schema)
    _refuse_written_calls(chat)
    notes = [MARKS_INSIDE] if has_marks_inside(messages) else []
    return Read(chat, ids + repairs, unused + fields.unused, notes)


def _refuse_written_calls(chat: Chat) -> None:
    """A call that stands in a text would be trained on with its marks broken up, and never be read as one."""
    for i, turn in enumerate(chat.messages if chat.uses_tools else ()):
        written = next((mark for mark in WRITTEN_CALLS if mark in turn["content"]), None)
        if written and turn["role"] == "assistant":
            what = f"writes a call as text ({written}); give it as tool_calls"
            raise RowError(f"messages[{i}].content", what)


def _chat_field(fields: Fields) -> str | None:
    """`messages` whatever it holds; a field of another name only if it holds a list: `data` can be a date."""
    if fields.mapped & {*QUESTIONS, *ANSWERS} and not fields.mapped & {*CHATS}:
        return None  # --columns asks for another shape
    listed = [name for name in CHATS if isinstance(unfolded(fields.peek(name)), list)]
    return fields.only(listed) or fields.only(CHATS[:1])


def _chat(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    name = _chat_field(fields) or CHATS[0]
    messages = read_turns(fields.spelled(name), _in_turn(name, fields.take(name)), unused)
    first = next((turn["content"] for turn in messages if turn["role"] == "user"), None)
    for key in ("prompt", "question", "query"):  # UltraChat repeats the first question
        if fields.present(key) and _is_same(fields.peek(key), first):
            fields.take(key)
    return messages


def _is_same(value: Any, text: str | None) -> bool:
    return isinstance(value, str) and text is not None and value.split() == text.split()


def _in_turn(name: str, value: Any) -> Any:
    """Texts alone, as in UltraChat's first `data`: user and assistant speak in turn."""
    turns = unfolded(value)
    if name == CHATS[0] or not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        return value
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def _rendered(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    where = fields.spelled("text")
    what = "is a chat that a template has rendered, or plain text; give messages"
    raise RowError(where, f"{what}, or name both columns: --columns question={where},answer=COLUMN")


def _first_of(*names: str) -> Callable[[Fields], str | None]:
    return lambda fields: next(filter(fields.has, names), None)


SHAPES = (
    Shape(_chat_field, _chat),
    Shape(_first_of(*ANSWERS), question_and_answer),
    Shape(_first_of("answers"), squad),
    Shape(_first_of(*QUESTIONS), question_and_answer),
    Shape(_first_of("text"), _rendered),
)


def _tools(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    where, value = fields.spelled("tools"), unfolded(fields.take("tools"))
    if value in (None, []):
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(where, f"must be a list of objects, not {json_name(value)}")
    for i, tool in enumerate(value):
        if not isinstance(declared(tool)["function"].get("name"), str):
            raise RowError(f"{where}[{i}].function.name", "missing")
    return tuple(value)


def _schema(fields: Fields) -> Mapping[str, Any] | None:
    """The schema of OpenAI's `response_format`; a format without one says nothing of the row."""
    where, given = fields.spelled(RESPONSE_FORMAT), unfolded(fields.peek(RESPONSE_FORMAT))
    if not isinstance(given, Mapping) or given.get("type") != "json_schema":
        return None
    fields.take(RESPONSE_FORMAT)
    named = given.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(schema, Mapping):
        raise RowError(f"{where}.json_schema.schema", "missing")
    return schema


def _check_marks(fields: Fields) -> None:
    """Marks of a whole row: it is used, or refused by name."""
    for name in ("weight", "train"):
        where = fields.spelled(name)
        if fields.present(name) and not counts_toward_loss(where, fields.take(name)):
            raise RowError(where, "excludes the only answer: leave the row out, or mark single messages")
    label = fields.take("label")
    where = fields.spelled("label")
    if label is False or (isinstance(label, str) and label.lower() == "false"):
        raise RowError(
            where, "false marks a bad answer, from which prepare does not learn: leave the row out"
        )
    if label is not None and label is not True and str(label).lower() != "true":
        raise RowError(where, "is neither true nor false; to group rows by it: --columns slice=" + where)


def read_label(fields: Fields, name: str, repairs: list[Repair]) -> str | None:
    """One of LABELS; a whole number becomes text."""
    value, where = fields.take(name), fields.spelled(name)
    if isinstance(value, int) and not isinstance(value, bool):
        repairs.append(Repair("numbers as ids taken", where, "is a number, not text"))
        value = str(value)
    return None if value is None else full_text(where, value)


def read_flag(fields: Fields, name: str) -> bool | None:
    """True or false, as tables may spell them; None if the row does not say."""
    value, where = fields.take(name), fields.spelled(name)
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if value is not None and str(value).strip().lower() not in known:
        raise RowError(where, "must be true or false")
    return None if value is None else known[str(value).strip().lower()]


def _refuse_preferences(fields: Fields) -> None:
    """Two answers of which one is better are no chat, unless --columns chooses one of them."""
    if fields.mapped & {*ANSWERS, *CHATS}:
        return
    for name in filter(fields.present, PREFERENCES):
        where = fields.spelled(name)
        value = unfolded(fields.peek(name))
        as_what = "messages" if is_messages(value) and len(value) > 1 else "answer"
        what = "belongs to a preference row, and prepare takes chats"
        raise RowError(where, f"{what}; to learn from one of the answers: --columns {as_what}={where}")


def _refuse_what_is_left(fields: Fields, shape: Shape) -> None:
    """Raise RowError for a field with meaning that the shape has not used."""
    beside = fields.spelled(shape.tells(fields) or "")
    for name, what in _REFUSED.items():
        if fields.is_left(name):
            where = fields.spelled(name)
            raise RowError(where, what.format(beside=beside, name=where))


def _unknown(fields: Fields) -> RowError:
    keys = ", ".join(short(key) for key in fields.names[:8]) or "none"
    what = f"has neither 'messages' nor 'question' and 'answer' (keys: {keys})"
    asked, answered = ([name.strip() for name in fields.names] + ["", ""])[:2]
    if asked.isprintable() and answered.isprintable() and answered:
        what += f"; name them, such as: --columns {shlex.quote(f'question={asked},answer={answered}')}"
    return RowError("row", what)
