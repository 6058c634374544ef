"""JSON as people keep rows in it: one object or chat per line, an array, or objects over several lines."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from phi3flow.chats.files.record import Record, Records
from phi3flow.chats.files.unpacking import whole
from phi3flow.chats.turns import is_turn
from phi3flow.core.jsonl import (
    RowError,
    an_object,
    json_errors,
    lines_in,
    parse_line,
    require_utf8,
    without_repeated_keys,
)

_GAP = re.compile(r"[\s,]*")
_LIST_NAMES = ("data", "rows", "examples", "records", "items", "train")
_LOOKED_AT = 20


def looks_like_lines(sample: str) -> bool:
    """Whether a text has one object per line, rather than other JSON or no JSON at all."""
    lines = [line.rstrip() for line in sample.splitlines() if line.strip()][:_LOOKED_AT]
    if lines[0].startswith("{") and (lines[0].endswith("}") or len(lines) == 1):
        return True
    return any(_is_row(line) for line in lines if line[0] in "{[")


def _is_row(line: str) -> bool:
    try:
        return bool(_row(line))
    except RowError:
        return False


def _row(line: str) -> dict[str, Any]:
    """A line's object; a list of messages is a chat without its object. Raises RowError."""
    return an_object(_as_row(parse_line(line)))


def _as_row(value: Any) -> Any:
    return {"messages": value} if isinstance(value, list) and value and all(map(is_turn, value)) else value


def read_lines(stream: TextIO) -> Records:
    """JSON Lines. Blank lines are skipped; a wrong line does not stop the others."""
    for number, line in enumerate(lines_in(stream), 1):
        if not line.strip():
            continue
        try:
            row = _row(line)
        except RowError as error:
            yield Record(number, error)
            continue
        name, rows = _list_inside(row) or ("", [])
        yield from (Record(number, each, f"{name}[{i}]") for i, each in enumerate(rows))
        if not rows:
            yield Record(number, row)


def read_values(stream: TextIO) -> Records:
    """An array of objects, objects over several lines, or one object that holds the list of rows.

    `place` is the line where the row starts. The first malformed row ends the reading: nothing after it can
    be told apart. Raises ValueError for a text of more than 1 GiB.
    """
    text = whole(stream)
    line, counted = 1, 0
    for at, item, value in _values(text):
        line += text.count("\n", counted, at)
        counted = at
        try:
            yield Record(line, value if isinstance(value, RowError) else an_object(_as_row(value)), item)
        except RowError as error:
            yield Record(line, error, item)


def _values(text: str) -> Iterator[tuple[int, str, Any]]:
    """Where each row starts, the path to it, and the row or a RowError."""
    start = _after_gap(text, 0)
    if text[start : start + 1] == "[":
        yield from ((at, f"[{i}]", value) for i, (at, value) in enumerate(_items(text, start + 1, "]")))
        return
    found = list(_items(text, start, ""))
    rows = _list_inside(found[0][1]) if len(found) == 1 else None
    if rows is None:
        yield from ((at, "", value) for at, value in found)
        return
    name, items = rows
    yield from ((start, f"{name}[{i}]", item) for i, item in enumerate(items))


def _items(text: str, at: int, end: str) -> Iterator[tuple[int, Any]]:
    """Values with commas or blanks between them, up to the closing bracket `end`, or the end of the text."""
    decoder = json.JSONDecoder(object_pairs_hook=without_repeated_keys)
    while True:
        at = _after_gap(text, at)
        if at == len(text) and end:
            yield at, RowError("json", "the array has no end: the file is cut short")
        if at == len(text) or text[at] == end:
            return
        try:
            with json_errors(text):
                value, after = decoder.raw_decode(text, at)
            require_utf8(text[at:after])
        except RowError as error:
            yield at, error
            return
        yield at, value
        at = after


def _after_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _list_inside(value: Any) -> tuple[str, list[Any]] | None:
    """The list of rows in an object such as {"data": [..]}; None if it is a row itself."""
    if not isinstance(value, dict):
        return None
    for name in _LIST_NAMES:
        rows = value.get(name)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return name, rows
    return None
