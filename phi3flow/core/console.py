"""Data goes to stdout, everything else to stderr."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

INTERRUPTED = 130  # the exit code after Ctrl-C


@dataclass(frozen=True)
class Outcome:
    """What a verb returns: `data` for `--json`, `text` for a person, and the exit code."""

    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    exit_code: int = 0


_quiet = _json = False


def configure(*, quiet: bool = False, json: bool = False) -> None:
    """Set what `-q` and `--json` ask for: only errors on stderr; one JSON object on stdout."""
    global _quiet, _json
    _quiet, _json = quiet, json


def is_quiet() -> bool:
    return _quiet


def is_json() -> bool:
    return _json


def say(message: str) -> None:
    """One line of progress on stderr; nothing with `-q`."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """One line on stderr that must be read, quiet or not: an error, or a choice that changes results."""
    print(message, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])
