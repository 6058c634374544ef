"""Data goes to stdout, everything else to stderr."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

INTERRUPTED = 130  # the exit code after Ctrl-C
# All control characters but the line's end and the tab, and the invisible ones that reverse what follows.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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
        print(visible(message), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """One line on stderr that must be read, quiet or not: an error, or a choice that changes results."""
    print(visible(message), file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """Foreign text for a terminal: what would steer it is shown by its picture or its code point."""
    return CONTROLS.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"


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
