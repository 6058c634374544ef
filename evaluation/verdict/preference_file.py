"""Recorded preferences: a judge's judgments, or the votes of the chat page.

A row on which the judge failed has the preference null and an `error`. It is counted, and in no average. Rows
of one `cluster` are not independent; neither are votes on the same `prompt`.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.statistics.scores import united
from evaluation.statistics.win_rate import Preference
from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.jsonl import BadRows, RowError, lines_of, parse_object
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Message

VOTES = {"base": 0.0, "tuned": 1.0, "tie": 0.5, "both_bad": 0.5}
MAX_CHARS = 10**9
NO_REASON = "no reason is recorded"
SHAPE = '{"id": "1", "preference": 1, "base_chars": 120, "tuned_chars": 95}'


class Judgments(NamedTuple):
    """The rows with a preference; `failures` counts the others, by reason."""

    preferences: list[Preference]
    failures: dict[str, int]


def load_judgments(path: Path) -> Judgments:
    """Every row of the file. Raises BadInput with one `file:line: field: what` for each wrong row."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file", hint="check the path")
    rows: list[Preference] = []
    prompts: list[list[Message]] = []
    failures: Counter[str] = Counter()
    bad = BadRows()
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
            name, failure = _id(row), _failure(row)
            if name in first_line:
                raise RowError("id", f"{name!r} is on line {first_line[name]} already")
            if failure is None:
                rows.append(_preference(name, row))
                prompts.append(_prompt(row))
        except RowError as error:
            bad.add(str(path), number, error)
            continue
        first_line[name] = number
        failures.update([failure] if failure else [])
    bad.require_none(SHAPE)
    if not first_line:
        raise BadInput(f"{path}: no rows in it", hint=f"one JSON object a line: {SHAPE}")
    return Judgments(_dependent(rows, prompts), dict(failures.most_common()))


def _preference(name: str, row: dict[str, Any]) -> Preference:
    share, chars = _share(row), [_chars(row, side.name) for side in SIDES]
    cluster = row.get("cluster")
    if cluster is not None and not isinstance(cluster, str):
        raise RowError("cluster", f"{cluster!r} is not text")
    return Preference(name, share, *chars, cluster=cluster)


def _prompt(row: dict[str, Any]) -> list[Message]:
    """The messages that were voted on; none if the row has none."""
    prompt = row.get("prompt") or []
    valid = isinstance(prompt, list) and all(
        isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        for turn in prompt
    )
    if not valid:
        raise RowError("prompt", "is no list of messages with role and content")
    return prompt


def _dependent(rows: list[Preference], prompts: list[list[Message]]) -> list[Preference]:
    """Rows of the same prompt or the same cluster get one cluster, as the rows of a test file do."""
    alone = np.array([not prompt for prompt in prompts], dtype=bool)
    questions = np.where(alone, len(rows) + np.arange(len(rows)), question_groups(prompts))
    known: dict[str, int] = {}
    labels = [-1 if row.cluster is None else known.setdefault(row.cluster, len(known)) for row in rows]
    clusters = united(questions, np.array(labels, dtype=np.int64)).tolist()
    sizes = Counter(clusters)
    return [
        replace(row, cluster=f"cluster {cluster}") if sizes[cluster] > 1 else row
        for row, cluster in zip(rows, clusters, strict=True)
    ]


def _failure(row: dict[str, Any]) -> str | None:
    """The reason why a row has no preference; None if it has one."""
    if "preference" not in row or row["preference"] is not None:
        return None
    error = row.get("error")
    if error is not None and not isinstance(error, str):
        raise RowError("error", f"{error!r} is not text")
    return error or NO_REASON


def _id(row: dict[str, Any]) -> str:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowError("id", "missing" if value is None else f"{value!r} is neither text nor a whole number")
    return str(value)


def _share(row: dict[str, Any]) -> float:
    if "preference" not in row and "vote" in row:
        vote = row["vote"]
        if not isinstance(vote, str) or vote not in VOTES:
            raise RowError("vote", f"{vote!r} is none ({nearest(str(vote), VOTES)})")
        return VOTES[vote]
    return float(_number(row, "preference", (int, float), 1, "a number from 0 (base) to 1 (tuned)"))


def _chars(row: dict[str, Any], side: str) -> int:
    return int(_number(row, f"{side}_chars", (int,), MAX_CHARS, "a number of characters"))


def _number(row: dict[str, Any], field: str, kind: tuple[type[float], ...], most: int, what: str) -> float:
    value = row.get(field)
    if value is None:
        raise RowError(field, "missing")
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value <= most:
        raise RowError(field, f"{value!r} is not {what}")
    return value
