"""Which container a file is, told by its content, not by its name; and its rows."""

import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from phi3flow.chats.files import json_files, tables
from phi3flow.chats.files.record import Record, Records
from phi3flow.chats.files.unpacking import BROKEN, ZIP, Packing, peek, unpacked, whole
from phi3flow.core.errors import BadInput, first_line
from phi3flow.core.jsonl import RowError
from phi3flow.core.text_files import open_text, start_of_text

_SAMPLE = 1 << 16
_TABLES: dict[bytes, tuple[str, Callable[[IO[bytes]], Records]]] = {
    b"PAR1": ("Parquet", tables.read_parquet),
    b"ARROW1": ("Arrow", tables.read_arrow_file),
    b"\xff\xff\xff\xff": ("Arrow stream", tables.read_arrow_stream),
}
# What we do not read: how it starts, what it is, and what makes something readable of it.
_FOREIGN = {
    b"%PDF": ("a PDF", "copy its questions and answers into a table"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", "save it as XLSX or CSV"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "zstd -d {file}"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x {file}"),
    b"Rar!": ("a RAR archive", "unrar x {file}"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"<": ("HTML or XML", "save the page's data as JSON or CSV"),
    b"\x80\x04": ("a Python pickle", "write its rows as JSON Lines"),
    b"\x93NUMPY": ("a NumPy array", "write its rows as JSON Lines"),
    b"Obj\x01": ("Avro", "write its rows as JSON Lines or Parquet"),
}
_ACCEPTED = "JSON Lines, a JSON array, CSV, TSV, XLSX, Parquet or Arrow; docs/data.md shows the rows"
_ENCODINGS = {"utf-8": "", "utf-8-sig": ", byte-order mark"}


class Container(NamedTuple):
    """How a file holds its rows. Each call of `records` starts at the first; it fills `left_out`."""

    name: str
    records: Callable[[], Records]
    left_out: list[str]


class _Format(NamedTuple):
    name: str
    read: Callable[[IO[bytes]], Records]


def container_of(path: Path, columns: frozenset[str] = frozenset()) -> Container:
    """Look at the file's first bytes. `columns` are names that a table's header may have.

    Raises BadInput for a file that is no container of rows: what it is, and what to do.
    """
    left_out: list[str] = []
    with unpacked(path) as (stream, packings):
        found = _format_of(path, peek(stream, _SAMPLE), columns, left_out)
    names = [found.name, *(each.name for each in packings)]
    return Container(", ".join(names), lambda: _records(path, found), left_out)


def _records(path: Path, found: _Format) -> Records:
    """All rows; a file that is cut short or broken ends with an error after its last row."""
    place: int | str = 1
    with unpacked(path) as (stream, packings):
        try:
            for record in found.read(stream):
                place = record.place
                yield _through(packings, record)
        except BROKEN as error:
            yield Record(place, RowError("file", f"is cut short or broken from here on: {first_line(error)}"))


def _through(packings: list[Packing], record: Record) -> Record:
    """The record; a command that repairs the file reads it through what unpacks it."""
    error = record.row
    if not packings or not isinstance(error, RowError) or not error.repair:
        return record
    unpack = f"{packings[0].command} {{file}}" + "".join(f" | {each.command}" for each in packings[1:])
    repair = f"{unpack} | {error.repair.replace(' < {file}', '')}"
    return record._replace(row=RowError(error.field, error.what, repair))


def _format_of(path: Path, start: bytes, columns: frozenset[str], left_out: list[str]) -> _Format:
    if start.startswith(ZIP):
        return _Format("XLSX", lambda raw: tables.read_xlsx(_seekable(raw), left_out))
    if table := next((found for magic, found in _TABLES.items() if start.startswith(magic)), None):
        return _Format(table[0], lambda raw: table[1](_seekable(raw)))
    if foreign := next((found for magic, found in _FOREIGN.items() if start.startswith(magic)), None):
        hint = foreign[1].replace("{file}", shlex.quote(str(path)))
        raise BadInput(f"{path}: is {foreign[0]}, not a file of rows", hint=hint)
    return _text_format(path, start, columns)


def _seekable(stream: IO[bytes]) -> IO[bytes]:
    """A stream whose end can be sought, which unpacked data has not."""
    return stream if isinstance(stream, io.BufferedReader) else io.BytesIO(whole(stream))


def _text_format(path: Path, start: bytes, columns: frozenset[str]) -> _Format:
    sample, spelled = start_of_text(start)
    encoding = _ENCODINGS.get(spelled, f", {spelled.upper()}")
    if not sample or json_files.looks_like_lines(sample):
        return _Format("JSON Lines" + encoding, lambda raw: json_files.read_lines(open_text(raw)))
    if sample[0] in "[{":
        return _Format("JSON" + encoding, lambda raw: json_files.read_values(open_text(raw)))
    if dialect := tables.dialect_of(sample, columns):
        return _Format(dialect.name + encoding, lambda raw: tables.read_csv(open_text(raw, ""), dialect))
    first = ascii(sample.splitlines()[0][:60])
    raise BadInput(
        f"{path}:1: looks like plain text, neither JSON nor a table with a header: {first}",
        hint=f"give {_ACCEPTED}",
    )
