"""Read chats from files and from the Hugging Face hub; errors are `file:line: field: what`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from phi3flow.chats.chat import Chat
from phi3flow.chats.field_names import NAMES
from phi3flow.chats.fields import Columns
from phi3flow.chats.files.sources import ORIGINS, Source, open_sources
from phi3flow.chats.intake import Intake
from phi3flow.chats.row_shapes import read_row
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import MAX_LINE, RowError, read_jsonl, to_line

NO_CHATS_HINT = "write one JSON object per line; docs/data.md shows the shapes"
KNOWN = frozenset(NAMES)


def open_chats(source: str, kind: str = "chats", columns: Columns | None = None) -> list[Source]:
    """The files of a source, or its hub data set. Raises BadInput, and Phi3flowError if the hub is away."""
    return open_sources(source, kind, KNOWN | frozenset((columns or {}).values()))


def read_chats(source: Source, intake: Intake, columns: Columns | None = None) -> Iterator[Chat]:
    """Yield the valid chats; everything else is counted in `intake`."""
    intake.containers[source.name] = source.container
    for record in source.records():
        try:
            if isinstance(record.row, RowError):
                raise record.row
            read = read_row(record.row, columns)
            _require_writable(read.chat)
            intake.add(read.repairs, read.unused, read.notes)
        except RowError as error:
            intake.bad.add(source.name, record.place, record.error(error))
            continue
        yield replace(read.chat, origin=f"{source.name}:{record.place}")
    intake.left_out += source.left_out


def _require_writable(chat: Chat) -> None:
    """Raise RowError for a chat whose line would be longer than what is read again."""
    texts = sum(len(turn["content"]) for turn in chat.messages)
    if texts < MAX_LINE // 8 and not chat.uses_tools:
        return
    if len(to_line(chat.row())) > MAX_LINE:
        raise RowError("row", f"longer than {MAX_LINE} characters")


def load_chats(path: Path) -> list[Chat]:
    """All chats of a file, in order. Raises BadInput for any bad row and for a file without chats."""
    return list(iterate_chats(path))


def load_split(path: Path) -> list[Chat]:
    """A split that `prepare` wrote; each chat's `origin` is the row in its owner's file, if that is known."""
    chats, known = load_chats(path), path.with_name(ORIGINS)
    rows = read_jsonl(known) if known.is_file() else []
    origins = [row["from"] for row in rows if row["split"] == path.stem]
    if len(origins) != len(chats):  # unknown, or somebody has edited the split
        return chats
    return [replace(chat, origin=origin) for chat, origin in zip(chats, origins, strict=True)]


def iterate_chats(path: Path) -> Iterator[Chat]:
    """Like `load_chats`, one at a time; BadInput is raised after the last one. Says what it repaired."""
    if not path.exists():
        raise BadInput(f"{path}: no such file", hint="check the path; phi3flow prepare writes test.jsonl")
    intake, found = Intake(), False
    for source in open_chats(str(path)):
        for chat in read_chats(source, intake):
            found = True
            yield chat
    intake.bad.require_none()
    if not found:
        raise BadInput(f"{path}: no chats in it", hint=NO_CHATS_HINT)
    for kind, rows in intake.repairs.items():
        say(f"{path}: {kind} in {rows} rows")
