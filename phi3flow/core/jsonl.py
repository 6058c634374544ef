"""JSON Lines: this program's own files, and files from users.

read_jsonl, write_jsonl    our own files; a broken line is a bug
parse_object, BadRows      files from users; a broken line is counted and reported as `file:line: field: what`
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput
from phi3flow.core.files import replacing

MAX_LINE_BYTES = 1 << 20
BYTE_ORDER_MARK = "byte-order mark"
LINE_END = "line end"
ENCODING = "encoding"
SHOWN = 20
# perl, because `sed -i` takes different arguments on Linux and macOS.
_REPAIRS = {
    BYTE_ORDER_MARK: r"perl -pi -e 's/^\xEF\xBB\xBF//' {}",
    LINE_END: r"perl -pi -e 's/\r$//' {}",
    ENCODING: "iconv -f WINDOWS-1252 -t UTF-8 {} > fixed.jsonl",
}
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


class RowError(Exception):
    """A row that cannot be used; the reader adds the file and the line."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field
        self.what = what


class BadRows:
    """Counts every bad row and keeps only the first messages, so a hopeless file takes little memory."""

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
            if self._crlf[file] > 1:  # report a file's line ends once
                return
        if len(self._first) < SHOWN:
            self._first.append((file, line, error))

    def report(self) -> str:
        """The number of bad rows, then `file:line: field: what`, one per line."""
        lines = [f"{self.total} bad row{'s' * (self.total != 1)}"]
        for file, line, error in self._first:
            others = self._crlf[file] - 1 if error.field == LINE_END else 0
            lines.append(f"{file}:{line}: {error}" + (f" (and {others} more lines)" if others else ""))
        return "\n".join(lines)

    def hint(self) -> str:
        """Commands that repair the rows, where a command can."""
        return "; ".join(self._repairs) or "correct these lines"

    def require_none(self, shape: str = "") -> None:
        """Raise BadInput with the report if any row is bad; `shape` shows what a good row looks like."""
        if self.total:
            raise BadInput(self.report(), hint=self.hint() + (f"; a row is {shape}" if shape else ""))


def lines_of(path: Path) -> Iterator[bytes]:
    """Lines without their LF. A line longer than MAX_LINE_BYTES is cut just beyond that limit."""
    with path.open("rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES + 2):
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES)
            yield line.removesuffix(b"\n")


def parse_object(line: bytes) -> dict[str, Any]:
    """Parse one line (without its LF) as a JSON object. Raises RowError."""
    try:
        row = json.loads(_decode(line), object_pairs_hook=_without_repeated_keys)
    except json.JSONDecodeError as error:
        raise RowError("json", f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RowError("json", "nested too deeply") from None
    except ValueError:
        raise RowError("json", "a number with too many digits") from None
    if not isinstance(row, dict):
        raise RowError("row", f"must be an object, not {json_name(row)}")
    return row


def any_text(field: str, value: Any) -> str:
    """Return `value` if it is text, empty or not, that UTF-8 can encode. Raises RowError."""
    if not isinstance(value, str):
        raise RowError(field, f"must be text, not {json_name(value)}")
    if _SURROGATE.search(value):
        raise RowError(field, "holds half a surrogate pair")
    return value


def json_name(value: Any) -> str:
    """The JSON type of a value in words: `a list`, `text`, `null`."""
    return _JSON_NAMES.get(type(value), "null")


def short(text: str) -> str:
    """A user's word, safe to print: at most 40 characters, one line, no terminal escapes."""
    return text if text.isidentifier() and len(text) <= 40 else ascii(text[:40])


def _decode(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise RowError("line", f"longer than {MAX_LINE_BYTES} bytes")
    if line.startswith(b"\xef\xbb\xbf"):
        raise RowError(BYTE_ORDER_MARK, "starts the line; JSON has none")
    if line.endswith(b"\r"):
        raise RowError(LINE_END, "is CRLF; JSONL ends lines with LF")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RowError(ENCODING, f"not UTF-8 at byte {error.start + 1}") from None
    if "\0" in text:
        raise RowError("line", "holds a NUL byte")
    return text


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RowError(short(key), "key given twice in one object")
        found[key] = value
    return found
