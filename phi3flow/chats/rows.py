"""Read chats from JSONL files and from the Hugging Face hub; errors are `file:line: field: what`."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from phi3flow.chats import hub
from phi3flow.chats.chat import Chat
from phi3flow.chats.row_shapes import parse_row
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import (
    MAX_LINE_BYTES,
    BadRows,
    RowError,
    lines_of,
)
from phi3flow.core.lineage import sha256_of

NO_CHATS_HINT = "write one JSON object per line; docs/data.md shows the shapes"


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
