"""From a file of preferences to rows to learn from and rows held out, without what the test set asks.

A row is held out by the hash of its prompt, as `training.data.split` does it: a fifth or more, since a few
rows alone would say nothing. Rows that ask the same, or nearly, go together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.chats.alike.tested import tested, texts_asked
from phi3flow.chats.chat import Chat
from phi3flow.chats.intake import Intake
from phi3flow.chats.preferences import NO_PREFERENCE, Preference, read_preferences
from phi3flow.chats.ratings import Rating, read_ratings
from phi3flow.chats.rows import load_chats, open_chats
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import BadRows, RowError
from training.data.split import TEST_SHARE, VAL_SHARE, position_of
from training.ranks import print0

Row = Preference | Rating
FEWEST = 10
HELD_OUT = TEST_SHARE + VAL_SHARE
MORE = "collect more: phi3flow up RUN --arena, then phi3flow feedback RUN --out FILE"


@dataclass(frozen=True)
class Compared:
    """Rows to learn from and rows held out; `ties` were left out."""

    train: Sequence[Row]
    held_out: Sequence[Row]
    ties: int


def read_compared_rows(file: Path, method: str, test_files: Sequence[Path]) -> Compared:
    """Read, check and divide the rows for dpo or kto. Raises BadInput with every bad row."""
    intake = Intake()
    rows: list[Row] = []
    for source in open_chats(str(file), "preferences"):
        rows += read_ratings(source, intake) if method == "kto" else read_preferences(source, intake)
    if rows:
        _refuse_tested(rows, test_files, intake.bad)
    require_no_bad(intake.bad, file)
    for kind, count in intake.repairs.items():
        print0(f"  {file}: {kind} in {count} rows")
    if intake.unused:
        fields = ", ".join(f"{name} ({count} rows)" for name, count in intake.unused.items())
        print0(f"  {file}: fields that are not used: {fields}")
    _require_enough(rows, file, method)
    train, held_out = _divided(rows, file)
    return Compared(train, held_out, intake.notes[NO_PREFERENCE])


def require_no_bad(bad: BadRows, file: Path) -> None:
    """Raise BadInput with the bad rows and a command that leaves them out."""
    if bad.total:
        leave_out = bad.leave_out(str(file))
        hint = f"correct these rows, or leave them out: {leave_out}" if leave_out else bad.hint()
        raise BadInput(f"{bad.report()}\nnothing was written", hint=hint)


def _refuse_tested(rows: Sequence[Row], files: Sequence[Path], bad: BadRows) -> None:
    """Count each row that asks a test question as a bad one."""
    if not files:
        print0("  no test set beside the model (data/test.jsonl), so no test question can be refused")
    tests = [(path, line, chat) for path in files for line, chat in enumerate(load_chats(path), 1)]
    asked = tested([texts_asked(row.prompt) for row in rows], [chat for _, _, chat in tests])
    refused: set[str] = set()  # a pair may be two rows
    for row, place in zip(rows, asked, strict=True):
        if place is not None and row.origin not in refused:
            refused.add(row.origin)
            path, line, _ = tests[place]
            refuse(bad, row, RowError("prompt", f"asks a question of the test set, {path}:{line}"))


def refuse(bad: BadRows, row: Row, error: RowError) -> None:
    """Count a row whose error was found after it was read."""
    file, _, place = row.origin.rpartition(":")
    bad.add(file, int(place) if place.isdigit() else place, error)


def _require_enough(rows: Sequence[Row], file: Path, method: str) -> None:
    if len(rows) < FEWEST:
        what = f"{len(rows)} rows with a preference, and {method} takes {FEWEST} or more"
        raise BadInput(f"{file}: {what}", hint=MORE)
    good = {row.is_good for row in rows if isinstance(row, Rating)}
    if len(good) == 1:
        kind = "up" if good == {True} else "down"
        raise BadInput(f"{file}: only thumbs {kind}, and kto takes both", hint=MORE)


def _divided(rows: Sequence[Row], file: Path) -> tuple[list[Row], list[Row]]:
    groups = text_groups((question_text(row.prompt, with_system=True) for row in rows), near=True).tolist()
    first: dict[int, float] = {}  # the smallest position in each cluster
    for group, row in zip(groups, rows, strict=True):
        first[group] = min(first.get(group, 1.0), position_of(row.prompt))
    if len(first) == 1:
        raise BadInput(f"{file}: all rows ask the same, so none can be held out", hint=MORE)
    by_position = sorted(first, key=first.__getitem__)
    below = sum(position < HELD_OUT for position in first.values())
    held = set(by_position[: min(len(first) - 1, max(below, math.ceil(HELD_OUT * len(first))))])
    sides: tuple[list[Row], list[Row]] = ([], [])
    for group, row in zip(groups, rows, strict=True):
        sides[group in held].append(row)
    return sides


def as_chat(row: Row, name: str) -> Chat:
    """The row with one of its answers, the only turn that bears loss."""
    prompt = ({**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in row.prompt)
    answer = {key: value for key, value in row.answers[name].items() if key != "weight"}
    return Chat((*prompt, answer), origin=row.origin)
