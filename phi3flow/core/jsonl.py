"""JSON Lines: this program's own files, and files from users.

read_jsonl, write_jsonl    our own files; a broken line is a bug
appending, keep_rows       our own files that grow while a long command runs, which may be killed
parse_object, BadRows      files from users; a broken line is counted and reported as `file:line: field: what`
"""

import json
import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from phi3flow.core.errors import BadInput
from phi3flow.core.files import replacing
from phi3flow.core.text_files import bad_byte, one_byte_encoding, open_text

MAX_LINE = 1 << 20  # characters
SHOWN = 20
LISTED = 500  # bad rows that a command can leave out
SYNC_SECONDS = 1.0
CORRECT = "correct these lines"
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}  # line ends to many programs
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def to_line(row: Any) -> bytes:
    """One row as a line of UTF-8 ending in LF; escapes other line ends in it."""
    return json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS).encode() + b"\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace the content of `path`; on failure the old file stays."""
    with replacing(path) as stream:
        stream.writelines(to_line(row).decode() for row in rows)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that this program wrote; skips blank lines."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()]


@contextmanager
def appending(path: Path) -> Iterator[Callable[[Any], None]]:
    """A function that appends a row to the file.

    A killed process loses none of them, a power cut at most those of a second.
    """
    with path.open("ab") as stream:
        synced = time.monotonic()

        def append(row: Any) -> None:
            nonlocal synced
            stream.write(to_line(row))
            stream.flush()
            if time.monotonic() - synced > SYNC_SECONDS:
                os.fsync(stream.fileno())
                synced = time.monotonic()

        yield append
        os.fsync(stream.fileno())


def keep_rows(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Remove unwanted rows of a file that `appending` wrote, and the half-written one of a killed process."""
    if not path.exists():
        return
    with path.open("rb") as stream, replacing(path) as kept:
        for line in stream:
            with suppress(ValueError):  # half-written
                if wanted(json.loads(line if line.endswith(b"\n") else b"")):
                    kept.write(line.decode())


class RowError(Exception):
    """A row that cannot be used; the reader adds the file and the line.

    `repair` is a command that repairs the file: `{file}` stands for it, `{fixed}` for what it writes.
    """

    def __init__(self, field: str, what: str, repair: str = "") -> None:
        super().__init__(f"{field}: {what}")
        self.field, self.what, self.repair = field, what, repair


class BadRows:
    """Counts every bad row and keeps only the first messages, so a hopeless file takes little memory."""

    def __init__(self) -> None:
        self.total = 0
        self._first: list[str] = []
        self._lines: dict[str, set[int]] = defaultdict(set)  # of each file
        self._repairs: dict[str, None] = {}

    def add(self, file: str, place: int | str, error: RowError) -> None:
        """`place` is the line, or a table's row."""
        self.add_at(f"{file}:{place}", error, file)
        if isinstance(place, int) and self.total <= LISTED:
            self._lines[file].add(place)

    def add_at(self, origin: str, error: RowError, file: str = "") -> None:
        """The same for a row whose file and line are one text; `file` is needed for its repair."""
        self.total += 1
        if error.repair:
            fixed = "fixed-" + re.sub(r"\.(gz|bz2|xz|zip)$", "", Path(file).name)
            names = {"{file}": shlex.quote(file), "{fixed}": shlex.quote(fixed)}
            command = re.sub(r"\{file\}|\{fixed\}", lambda found: names[found[0]], error.repair)
            self._repairs[command] = None
        if len(self._first) < SHOWN:
            self._first.append(f"{origin}: {error}")

    def report(self) -> str:
        """The number of bad rows, then `file:line: field: what`, one per line."""
        return "\n".join([f"{self.total} bad row{'s' * (self.total != 1)}", *self._first])

    def leave_out(self, file: str) -> str:
        """To paste: writes a JSON Lines file without its bad rows; empty for others, and for too many."""
        lines = sorted(self._lines[file])
        if not lines or self.total > LISTED or Path(file).suffix not in {".jsonl", ".ndjson"}:
            return ""
        rest = Path(file).with_name(f"good-{Path(file).name}")
        deleted = "".join(f"{line}d;" for line in lines)
        return f"sed '{deleted[:-1]}' {shlex.quote(file)} > {shlex.quote(str(rest))}"

    def hint(self) -> str:
        """Commands that repair the rows, where a command can."""
        return "; ".join(self._repairs) or CORRECT

    def require_none(self, shape: str = "") -> None:
        """Raise BadInput with the report if any row is bad; `shape` shows what a good row looks like."""
        if self.total:
            raise BadInput(self.report(), hint=self.hint() + (f"; a row is {shape}" if shape else ""))


def lines_of(path: Path) -> Iterator[str]:
    """Lines without their ends, in any encoding that `open_text` knows. Raises BadInput for a broken file."""
    with path.open("rb") as stream:
        try:
            yield from lines_in(open_text(stream))
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: not {error.encoding}: {error.reason}", hint="save it as UTF-8") from None


def lines_in(stream: TextIO) -> Iterator[str]:
    """Lines without their LF. A line longer than MAX_LINE is cut just beyond that limit."""
    while line := stream.readline(MAX_LINE + 2):
        rest = line
        while rest and not rest.endswith("\n"):
            rest = stream.readline(MAX_LINE)
        yield line.removesuffix("\n")


def parse_object(line: str | bytes) -> dict[str, Any]:
    """Parse one line (without its LF) as a JSON object. Raises RowError."""
    return an_object(parse_line(line))


def parse_line(line: str | bytes) -> Any:
    """The same for any JSON value."""
    text = line.decode("utf-8", "surrogateescape") if isinstance(line, bytes) else line
    if len(text) > MAX_LINE:
        raise RowError("line", f"longer than {MAX_LINE} characters")
    require_utf8(text)
    if "\0" in text:
        raise RowError("line", "holds a NUL byte", "tr -d '\\000' < {file} > {fixed}")
    return parse_json(text)


def parse_json(text: str) -> Any:
    """Any JSON value; a key that stands twice in one object is an error. Raises RowError."""
    with json_errors(text):
        return json.loads(text, object_pairs_hook=without_repeated_keys)


@contextmanager
def json_errors(text: str) -> Iterator[None]:
    """Turn the parser's errors about `text` into RowError; the line is named where there are several."""
    try:
        yield
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise RowError("json", f"{error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise RowError("json", "nested too deeply") from None
    except ValueError:
        raise RowError("json", "a number with too many digits") from None


def an_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError("row", f"must be an object, not {json_name(value)}")
    return value


def require_utf8(text: str, field: str = "encoding") -> None:
    """Raise RowError for text from `open_text` with a byte that was not UTF-8."""
    if (position := bad_byte(text)) is not None:
        repair = f"iconv -f {one_byte_encoding(text)} -t UTF-8 < {{file}} > {{fixed}}"
        raise RowError(field, f"not UTF-8 at byte {position}", repair)


def any_text(field: str, value: Any) -> str:
    """Return `value` if it is text, empty or not, that UTF-8 can encode. Raises RowError."""
    if not isinstance(value, str):
        raise RowError(field, f"must be text, not {json_name(value)}")
    if _SURROGATE.search(value):
        raise RowError(field, "holds half a surrogate pair")
    return value


def json_name(value: Any) -> str:
    """The type of a value in words: `a list`, `text`, `null`; for what only tables hold, its name there."""
    return _JSON_NAMES.get(type(value), "null" if value is None else type(value).__name__)


def short(text: str) -> str:
    """A user's word, safe to print: at most 40 characters, one line, no terminal escapes."""
    return text if text.isidentifier() and len(text) <= 40 else ascii(text[:40])


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RowError(short(key), "key given twice in one object")
        found[key] = value
    return found
