"""Chats from JSONL files and from data sets of the Hugging Face hub, or `file:line: field: what` is wrong."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from phi3flow.chats import hub
from phi3flow.chats.chat import Chat
from phi3flow.chats.row_shapes import BYTE_ORDER_MARK, ENCODING, LINE_END, MAX_LINE_BYTES, RowError, parse_row
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of

SHOWN = 20
NO_CHATS_HINT = "one JSON object a line; docs/data.md shows the shapes"
# perl, because `sed -i` takes different arguments on Linux and macOS.
_REPAIRS = {
    BYTE_ORDER_MARK: r"perl -pi -e 's/^\xEF\xBB\xBF//' {}",
    LINE_END: r"perl -pi -e 's/\r$//' {}",
    ENCODING: "iconv -f WINDOWS-1252 -t UTF-8 {} > fixed.jsonl",
}


class Source(NamedTuple):
    """Rows by name and content. `lines` starts from the first line at every call."""

    kind: str
    name: str
    sha256: str
    lines: Callable[[], Iterator[bytes]]


class BadRows:
    """Counts every refused row and keeps the first messages, so a hopeless file costs no memory."""

    def __init__(self) -> None:
        self.total = 0
        self._first: list[tuple[str, int, RowError]] = []
        self._crlf: Counter[str] = Counter()
        self._repairs: dict[str, None] = {}

    def add(self, file: str, line: int, error: RowError) -> None:
        self.total += 1
        if error.field in _REPAIRS:
            self._repairs[_REPAIRS[error.field].format(shlex.quote(file))] = None
        if error.field == LINE_END:
            self._crlf[file] += 1
            if self._crlf[file] > 1:  # the whole file has them: one message says it
                return
        if len(self._first) < SHOWN:
            self._first.append((file, line, error))

    def report(self) -> str:
        """How many rows were refused, then one `file:line: field: what` a line."""
        lines = [f"{self.total} bad row{'s' * (self.total != 1)}"]
        for file, line, error in self._first:
            others = self._crlf[file] - 1 if error.field == LINE_END else 0
            lines.append(f"{file}:{line}: {error}" + (f" (and {others} more lines)" if others else ""))
        return "\n".join(lines)

    def hint(self) -> str:
        """The commands that repair what a command can repair."""
        return "; ".join(self._repairs) or "correct these lines"


def open_source(source: str, kind: str = "chats") -> Source:
    """Find a file or a hub data set and hash what it holds; `kind` is its part in the manifest.

    Raises BadInput where there is none, Phi3flowError when the hub cannot be reached.
    """
    path = Path(source)
    if path.is_file():
        return Source(kind, source, sha256_of(path), lambda: _lines(path))
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
    if bad.total:
        raise BadInput(bad.report(), hint=bad.hint())
    if not found:
        raise BadInput(f"{path}: no chats in it", hint=NO_CHATS_HINT)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their line feed; a line over the limit comes cut off just after it."""
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES + 2):
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES)
            yield line.removesuffix(b"\n")
