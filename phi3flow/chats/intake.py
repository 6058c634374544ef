"""What reading chats came to: bad rows, repairs, and names of fields that were not used."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from phi3flow.chats.repairs import Repair
from phi3flow.core.jsonl import BadRows, RowError


class Intake:
    """Counts while rows are read. With `strict` a repair is the row's error."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.bad = BadRows()
        self.repairs: Counter[str] = Counter()  # rows, by what was done
        self.unused: Counter[str] = Counter()  # rows, by field
        self.containers: dict[str, str] = {}  # of each file
        self.left_out: list[str] = []  # files and sheets
        self.notes: Counter[str] = Counter()  # rows, by what is odd or left out

    def add(self, repairs: Iterable[Repair], unused: Iterable[str], notes: Iterable[str] = ()) -> None:
        """Count one row. Raises RowError for a repair with `strict`."""
        done = list(repairs)
        if self.strict and done:
            raise RowError(done[0].field, f"{done[0].what} (--strict)")
        self.repairs.update({repair.kind for repair in done})
        self.unused.update(set(unused))
        self.notes.update(notes)

    def told(self) -> dict[str, Any]:
        """For the manifest: all but the bad rows, which stop the run or are in its counts."""
        return {
            "containers": self.containers,
            "repairs": dict(self.repairs.most_common()),
            "unused_fields": dict(self.unused.most_common()),
            "notes": dict(self.notes.most_common()),
            "left_out": self.left_out,
        }
