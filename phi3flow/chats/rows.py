"""Chats from JSONL files and from data sets of the Hugging Face hub, or `file:line: field: what` is wrong."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from phi3flow.chats import hub
from phi3flow.chats.chat import Chat
from phi3flow.chats.row_shapes import parse_row
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import MAX_LINE_BYTES, BadRows, RowError, lines_of
from phi3flow.core.lineage import sha256_of

NO_CHATS_HINT = "one JSON object a line; docs/data.md shows the shapes"


class Source(NamedTuple):
    """Rows by name and content. `lines` starts from the first line at every call."""

    kind: str
    name: str
    sha256: str
    lines: Callable[[], Iterator[bytes]]


def open_source(source: str, kind: str = "chats") -> Source:
    """Find a file or a hub data set and hash what it holds; `kind` is its part in the manifest.

    Raises BadInput where there is none, Phi3flowError when the hub cannot be reached.
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
    """Yield the source's valid chats; refused rows go to `bad`. A blank line is no row."""
    for number, line in enumerate(source.lines(), 1):
        if len(line) <= MAX_LINE_BYTES and not line.strip():
            continue
        try:
            yield parse_row(line)
        except RowError as error:
            bad.add(source.name, number, error)


def load_chats(path: Path) -> list[Chat]:
    """Every chat of a JSONL file, in its order. Raises BadInput on any bad row and when there is none."""
    return list(iterate_chats(path))


def iterate_chats(path: Path) -> Iterator[Chat]:
    """Like `load_chats`, one at a time: BadInput comes after the last."""
    if not path.exists():
        raise BadInput(f"{path}: no such file", hint="check the path; phi3flow prepare writes test.jsonl")
    bad, found = BadRows(), False
    for chat in read_chats(open_source(str(path)), bad):
        found = True
        yield chat
    bad.require_none()
    if not found:
        raise BadInput(f"{path}: no chats in it", hint=NO_CHATS_HINT)
