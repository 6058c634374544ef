"""Answers as they arrive, appended to a file that a killed process leaves usable.

One line of JSON each, in the shape of `answer_file`. A line is handed to the system at once, so a killed
process loses none; once a second all is forced onto the disk, so a power cut costs a second.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from evaluation.asking.answer_file import Record
from phi3flow.core.files import replacing
from phi3flow.core.jsonl import to_line

SYNC_SECONDS = 1.0


class AnswerLog:
    """Append-only; made by `appending`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._synced = stream, time.monotonic()

    def append(self, i: int, record: Record) -> None:
        """File the record of the chat at position `i`, from 0."""
        self._stream.write(to_line({"line": i + 1, **record._asdict()}))
        self._stream.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()


@contextmanager
def appending(path: Path) -> Iterator[AnswerLog]:
    """Continue the file, or begin it."""
    with path.open("ab") as stream:
        log = AnswerLog(stream)
        yield log
        log.sync()


def keep_answers(path: Path, lines: int) -> bytearray:
    """Clear the file of all that is to be asked again, and say which of `lines` remain: 1 or 0 each.

    Asked again is what failed, and what a killed process or a power cut left half written.
    """
    answered = bytearray(lines)
    if not path.exists():
        return answered
    with path.open("rb") as stream, replacing(path) as kept:
        for line in stream:
            row = _whole(line)
            if row is not None and row["answer"] is not None:
                answered[row["line"] - 1] = 1
                kept.write(line.decode())
    return answered


def _whole(line: bytes) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row
