"""Recorded preferences, from a file: judgments, or the votes of the chat page.

A row of which the judge said nothing usable has the preference null, and an `error` that says why: it is
counted, and in no average.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.statistics.win_rate import Preference
from phi3flow.core.errors import BadInput, nearest

VOTES = {"base": 0.0, "tuned": 1.0, "tie": 0.5, "both_bad": 0.5}
MAX_CHARS = 10**9
SHOWN = 20
NO_REASON = "no reason is recorded"
SHAPE = '{"id": "1", "preference": 1, "base_chars": 120, "tuned_chars": 95}'


class Judgments(NamedTuple):
    """The rows with a preference, and why the others have none."""

    preferences: list[Preference]
    failures: dict[str, int]


class _Wrong(Exception):
    """One thing wrong with a row; the text starts with the field."""


def load_preferences(path: Path) -> list[Preference]:
    """The rows of the file that have a preference. Raises what `load_judgments` raises."""
    return load_judgments(path).preferences


def load_judgments(path: Path) -> Judgments:
    """Every row of the file. Raises BadInput with one `file:line: field: what` for each wrong row."""
    rows: list[Preference] = []
    failures: Counter[str] = Counter()
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            row = _object(line)
            name, failure = _id(row), _failure(row)
            if name in first_line:
                raise _Wrong(f"id: {name!r} stands on line {first_line[name]} already")
            if failure is None:
                rows.append(
                    Preference(name, _share(row), _count(row, "base_chars"), _count(row, "tuned_chars"))
                )
        except _Wrong as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        first_line[name] = number
        failures.update([failure] if failure else [])
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise BadInput("\n".join([*problems[:SHOWN], *more]), hint=f"a row is {SHAPE}")
    if not first_line:
        raise BadInput(f"{path}: no rows in it", hint=f"one JSON object a line: {SHAPE}")
    return Judgments(rows, dict(failures.most_common()))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    return ((number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"line: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise _Wrong("line: not a JSON object")
    return row


def _failure(row: dict[str, Any]) -> str | None:
    """Why a row has no preference; None for one that has."""
    if "preference" not in row or row["preference"] is not None:
        return None
    error = row.get("error")
    if error is not None and not isinstance(error, str):
        raise _Wrong(f"error: {error!r} is not text")
    return error or NO_REASON


def _id(row: dict[str, Any]) -> str:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _Wrong("id: missing" if value is None else f"id: {value!r} is neither text nor a whole number")
    return str(value)


def _share(row: dict[str, Any]) -> float:
    if "preference" not in row and "vote" in row:
        vote = row["vote"]
        if not isinstance(vote, str) or vote not in VOTES:
            raise _Wrong(f"vote: {vote!r} is none ({nearest(str(vote), VOTES)})")
        return VOTES[vote]
    value = row.get("preference")
    if value is None:
        raise _Wrong("preference: missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _Wrong(f"preference: {value!r} is not a number from 0 (base) to 1 (tuned)")
    return float(value)


def _count(row: dict[str, Any], field: str) -> int:
    value = row.get(field)
    if value is None:
        raise _Wrong(f"{field}: missing")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_CHARS:
        raise _Wrong(f"{field}: {value!r} is not a number of characters")
    return value
