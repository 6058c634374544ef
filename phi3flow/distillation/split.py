"""Which rows are held out: whole documents where there are enough of them, else whole passages.

Passages do not overlap, and near copies were left out. So no passage of a test row stands in another row.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from phi3flow.distillation.candidates import Candidate
from training.data.split import TEST_SHARE

ENOUGH_DOCUMENTS = 10
ENOUGH_ROWS, MOST_SHARE = 30, 0.2  # the gate wants thirty questions; a fifth of the rows at most


class Split(NamedTuple):
    """Rows for train and val, and held-out rows; `unit` is what was held out whole."""

    chats: list[dict[str, Any]]
    test: list[dict[str, Any]]
    unit: str


def divided(rows: Sequence[Candidate]) -> Split:
    """A tenth of the rows is held out, thirty if that is more, but at most a fifth; none without passages."""
    documents = {one.passage.document for one in rows if one.passage}
    unit = "document" if len(documents) >= ENOUGH_DOCUMENTS else "passage"
    held = _held_out([_unit(one, unit) for one in rows if one.passage])
    several = len(documents) > 1
    chats = [_row(one, several) for one in rows if not one.passage or _unit(one, unit) not in held]
    test = [_row(one, several) for one in rows if one.passage and _unit(one, unit) in held]
    return Split(chats, test, unit)


def _held_out(units: Sequence[str]) -> set[str]:
    """In the order of their hashes, until there are enough rows; never all of them."""
    sizes = Counter(units)
    wanted = min(max(TEST_SHARE * len(units), ENOUGH_ROWS), MOST_SHARE * len(units))
    held: set[str] = set()
    rows = 0
    for unit in sorted(sizes, key=lambda one: hashlib.sha256(one.encode()).digest())[:-1]:
        if rows >= wanted:
            break
        held.add(unit)
        rows += sizes[unit]
    return held


def _unit(one: Candidate, unit: str) -> str:
    assert one.passage  # noqa: S101 - for the type checker
    return one.passage.document if unit == "document" else str(one.passage)


def _row(one: Candidate, several: bool) -> dict[str, Any]:
    """As `prepare` reads it. `cluster` is the document; the passage where there is one document only."""
    content = "\n".join(str(turn["content"]) for turn in one.messages())
    row: dict[str, Any] = {"messages": one.messages()}
    row["prompt_id"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    if one.passage:
        row["cluster"] = one.passage.document if several else str(one.passage)
        row |= {"passage": str(one.passage), "quote": one.quote}
    return row
