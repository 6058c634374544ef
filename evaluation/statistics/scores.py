"""Rows -> columns of numbers, in one pass: a dozen numbers per line stay in memory, and no text."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.answer_metrics import declines, score_answer
from evaluation.scored_rows import Answer, ScoredRow

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Numbers = NDArray[np.int64]
METRICS = ("exact_match", "token_f1", "answer_chars", "answer_tokens")
ALONE = 1 << 32  # a line without a cluster is one by itself, with a number from here on


class Column(NamedTuple):
    """One number per line for each model; NaN where a line has none."""

    base: Floats
    tuned: Floats

    def where(self, mask: Bools) -> "Column":
        return Column(self.base[mask], self.tuned[mask])

    @property
    def difference(self) -> Floats:
        return self.tuned - self.base

    @property
    def measured(self) -> Bools:
        """Mask of the lines with a value for both models."""
        return ~np.isnan(self.difference)


class Measured(NamedTuple):
    """Metrics that something outside measured, as columns over all lines of the test file.

    `unavailable` maps each metric that cannot be computed to the reason. `package` has its version.
    """

    columns: dict[str, Column]
    unavailable: dict[str, str]
    package: str = ""


@dataclass(frozen=True)
class Scores:
    """Columns over the same lines. `failed` and `declined` hold 0 or 1.

    `counted` lines have both answers and a reference that does not decline: they have metrics. `unanswerable`
    lines have both answers and a reference that declines: they have `declined`. `same`: both answers are
    equal. Lines of one slice, or of one cluster, have the same number; `slice_numbers` names the slices.
    """

    slice_numbers: dict[str | None, int]
    slices: Numbers
    clusters: Numbers
    same: Bools
    metrics: dict[str, Column]
    failed: Column
    seconds: Column
    declined: Column

    def __len__(self) -> int:
        return len(self.same)

    @property
    def answered(self) -> Bools:
        return (self.failed.base == 0) & (self.failed.tuned == 0)

    @property
    def unanswerable(self) -> Bools:
        return self.declined.measured

    @property
    def counted(self) -> Bools:
        return self.answered & ~self.unanswerable

    def where(self, mask: Bools) -> "Scores":
        """The lines of `mask`."""
        return Scores(
            self.slice_numbers,
            self.slices[mask],
            self.clusters[mask],
            self.same[mask],
            {name: column.where(mask) for name, column in self.metrics.items()},
            self.failed.where(mask),
            self.seconds.where(mask),
            self.declined.where(mask),
        )


def score_rows(rows: Iterable[ScoredRow]) -> Scores:
    """Score every line once."""
    slice_numbers: dict[str | None, int] = {}
    known: dict[str, int] = {}
    slices, clusters, same = array("q"), array("q"), bytearray()
    columns = {name: (array("d"), array("d")) for name in ("failed", "seconds", "declined", *METRICS)}
    for i, row in enumerate(rows):
        slices.append(slice_numbers.setdefault(row.slice, len(slice_numbers)))
        clusters.append(ALONE + i if row.cluster is None else known.setdefault(row.cluster, len(known)))
        answered = row.base is not None and row.tuned is not None
        refuses = answered and declines(row.reference)
        same.append(row.base is not None and row.tuned is not None and row.base.text == row.tuned.text)
        for side, answer in enumerate((row.base, row.tuned)):
            numbers = _numbers(answer, row.reference if answered else None, refuses=refuses)
            for name, column in columns.items():
                column[side].append(numbers.get(name, np.nan))
    made = {name: Column(*(np.array(side, dtype=float) for side in both)) for name, both in columns.items()}
    metrics = {name: made.pop(name) for name in METRICS}
    return Scores(slice_numbers, np.array(slices), np.array(clusters), np.array(same, bool), metrics, **made)


def _numbers(answer: Answer | None, reference: str | None, *, refuses: bool) -> dict[str, float]:
    """The numbers of one answer, by column; `reference` is None if the other side failed."""
    if answer is None:
        return {"failed": 1.0}
    numbers = {"failed": 0.0} | ({} if answer.seconds is None else {"seconds": answer.seconds})
    if refuses:
        return numbers | {"declined": float(declines(answer.text))}
    if reference is None:
        return numbers
    tokens = {} if answer.tokens is None else {"answer_tokens": float(answer.tokens)}
    return numbers | score_answer(answer.text, reference) | tokens


def clusters_of(scores: Scores) -> Numbers | None:
    """A cluster number for each line, from 0; None if no two lines share a cluster."""
    found, renumbered = np.unique(scores.clusters, return_inverse=True)
    return None if len(found) == len(renumbered) else renumbered.astype(np.int64)
