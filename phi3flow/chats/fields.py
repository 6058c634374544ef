"""The fields of one row: found in any capitalisation, renamed by `--columns`, and none lost in silence."""

import ast
import json
from collections.abc import Iterable, Mapping
from typing import Any

from phi3flow.core.jsonl import RowError, short

Columns = Mapping[str, str]  # our name -> the file's


def plain(name: str) -> str:
    """How names are compared: `Prompt ID` is prompt_id."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


class Fields:
    """A row by plain names. Each value that is taken is used; `unused` are the others.

    None and empty text count as absent, because tables fill their columns with them.
    """

    def __init__(self, row: Mapping[str, Any], columns: Columns) -> None:
        self._values: dict[str, Any] = {}
        self._spelled: dict[str, str] = {}
        self._unused: dict[str, None] = {}
        self.mapped = frozenset(columns)
        renamed = {theirs: ours for ours, theirs in columns.items()}
        for theirs, ours in renamed.items():
            if theirs not in row:
                raise RowError(short(theirs), f"missing, and --columns names it for {ours}")
        for key, value in row.items():
            name = renamed.get(key, plain(key))
            if key not in renamed and name in columns:
                self._unused[key] = None
                continue
            if name in self._values:
                raise RowError(
                    short(key), f"given together with {short(self._spelled[name])!r}; keep one of them"
                )
            self._values[name], self._spelled[name] = value, key
        self._left = {name for name, value in self._values.items() if not is_absent(value) and value != []}

    def has(self, name: str) -> bool:
        return name in self._values

    def present(self, name: str) -> bool:
        """Whether the field has a value."""
        return not is_absent(self._values.get(name))

    def peek(self, name: str) -> Any:
        """The value, without using it."""
        return self._values.get(name)

    def is_left(self, name: str) -> bool:
        """Whether the field has a value that nobody took."""
        return name in self._left

    def spelled(self, name: str) -> str:
        """The row's own name of the field, for errors."""
        return short(self._spelled[name]) if name in self._spelled else name

    def take(self, name: str) -> Any:
        """The value, or None if it is absent."""
        self._left.discard(name)
        value = self._values.get(name)
        return None if is_absent(value) else value

    def only(self, names: Iterable[str]) -> str | None:
        """Which of these the row has. Raises RowError if it has several."""
        having = [name for name in names if self.has(name)]
        chosen = [name for name in having if name in self.mapped] or having
        filled = [name for name in chosen if self.present(name)] or chosen
        if len(filled) > 1:
            first, second = (self.spelled(name) for name in filled[:2])
            raise RowError(second, f"given together with {first!r}; keep one of them")
        return filled[0] if filled else None

    @property
    def unused(self) -> list[str]:
        """The row's own names of all fields with a value that nobody took."""
        return [*(self._spelled[name] for name in self._values if name in self._left), *self._unused]

    @property
    def names(self) -> list[str]:
        return list(self._spelled.values())


def is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def unfolded(value: Any) -> Any:
    """A list that a table holds as text, JSON or Python's; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return value
