"""What every container gives: rows as objects, each with its place in the file."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from phi3flow.core.jsonl import RowError


class Record(NamedTuple):
    """One row, or why it cannot be read.

    `place` is its line, or a table's row. `item` is the path to a row inside a JSON array, as `[3]`.
    """

    place: int | str
    row: dict[str, Any] | RowError
    item: str = ""

    def error(self, error: RowError) -> RowError:
        """The error with the path to the wrong field in the file."""
        if not self.item:
            return error
        return RowError(f"{self.item}.{error.field}", error.what, error.repair)


Records = Iterator[Record]
