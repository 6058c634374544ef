"""Rows -> columns of figures: all that the statistics need of a line, and no text.

Made in one pass over the rows, which may stream from files: some dozen numbers a line stay in memory.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.answer_metrics import declines, score_answer
from evaluation.rows import Answer, ScoredRow

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
METRICS = ("exact_match", "token_f1", "answer_chars", "answer_tokens")
NO_LABEL = -1


class Column(NamedTuple):
    """One figure of both models, an entry a line; NaN where a line has none."""

    base: Floats
    tuned: Floats

    def where(self, mask: Bools) -> "Column":
        return Column(self.base[mask], self.tuned[mask])

    @property
    def difference(self) -> Floats:
        return self.tuned - self.base

    @property
    def measured(self) -> Bools:
        """The lines that have the figure for both models."""
        return ~np.isnan(self.difference)


class Labels(NamedTuple):
    """A label per line as a position in `names`, `NO_LABEL` without one."""

    names: list[str]
    codes: NDArray[np.int64]

    def of(self, name: str) -> Bools:
        mask: Bools = self.codes == self.names.index(name)
        return mask

    def where(self, mask: Bools) -> "Labels":
        return Labels(self.names, self.codes[mask])


@dataclass(frozen=True)
class Scores:
    """Columns over the same lines. `failed` and `declined` hold 0 or 1.

    `counted` lines, with both answers and a reference that does not decline, have metrics; `unanswerable`
    ones, with both answers and a reference that does, have `declined`. `same` lines have one answer twice.
    """

    slices: Labels
    clusters: Labels
    failed: Column
    seconds: Column
    unanswerable: Bools
    same: Bools
    declined: Column
    metrics: dict[str, Column]

    def __len__(self) -> int:
        return len(self.unanswerable)

    @property
    def answered(self) -> Bools:
        return (self.failed.base == 0) & (self.failed.tuned == 0)

    @property
    def counted(self) -> Bools:
        return self.answered & ~self.unanswerable

    def where(self, mask: Bools) -> "Scores":
        """The lines of `mask`, for example of one slice."""
        return Scores(
            self.slices.where(mask),
            self.clusters.where(mask),
            self.failed.where(mask),
            self.seconds.where(mask),
            self.unanswerable[mask],
            self.same[mask],
            self.declined.where(mask),
            {name: column.where(mask) for name, column in self.metrics.items()},
        )


def score_rows(rows: Iterable[ScoredRow]) -> Scores:
    """Score every line once."""
    slices, clusters = _Codes(), _Codes()
    columns = {name: (array("d"), array("d")) for name in ("failed", "seconds", "declined", *METRICS)}
    unanswerable, same = bytearray(), bytearray()
    for row in rows:
        slices.add(row.slice)
        clusters.add(row.cluster)
        answered = row.base is not None and row.tuned is not None
        refuses = answered and declines(row.reference)
        unanswerable.append(refuses)
        same.append(row.base is not None and row.tuned is not None and row.base.text == row.tuned.text)
        for side, answer in enumerate((row.base, row.tuned)):
            figures = _figures(answer, row.reference if answered else None, refuses=refuses)
            for name, column in columns.items():
                column[side].append(figures.get(name, np.nan))
    made = {name: Column(*(np.array(side, dtype=float) for side in both)) for name, both in columns.items()}
    return Scores(
        slices=slices.labels(),
        clusters=clusters.labels(),
        failed=made["failed"],
        seconds=made["seconds"],
        unanswerable=np.array(unanswerable, dtype=bool),
        same=np.array(same, dtype=bool),
        declined=made["declined"],
        metrics={name: made[name] for name in METRICS},
    )


def _figures(answer: Answer | None, reference: str | None, *, refuses: bool) -> dict[str, float]:
    """What one answer adds to the columns; `reference` is None where the other side failed."""
    if answer is None:
        return {"failed": 1.0}
    figures = {"failed": 0.0} | ({} if answer.seconds is None else {"seconds": answer.seconds})
    if refuses:
        return figures | {"declined": float(declines(answer.text))}
    if reference is None:
        return figures
    tokens = {} if answer.tokens is None else {"answer_tokens": float(answer.tokens)}
    return figures | score_answer(answer.text, reference) | tokens


@dataclass
class _Codes:
    """Gives every new label the next number."""

    known: dict[str, int] = field(default_factory=dict)
    codes: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, label: str | None) -> None:
        code = NO_LABEL if label is None else self.known.setdefault(label, len(self.known))
        self.codes.append(code)

    def labels(self) -> Labels:
        return Labels(list(self.known), np.array(self.codes, dtype=np.int64))


def with_metrics(scores: Scores, more: Mapping[str, Column]) -> Scores:
    """`scores` with further metrics, whose columns cover the same lines."""
    return Scores(**{**vars(scores), "metrics": {**scores.metrics, **more}})


def clusters_of(scores: Scores) -> NDArray[np.int64] | None:
    """A cluster number for each line, from 0; None where no two lines share one and all are independent."""
    codes = scores.clusters.codes.copy()
    alone = codes == NO_LABEL
    codes[alone] = len(scores.clusters.names) + np.arange(int(alone.sum()))
    found, renumbered = np.unique(codes, return_inverse=True)
    return None if len(found) == len(codes) else renumbered.astype(np.int64)
