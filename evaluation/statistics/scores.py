"""Rows -> columns of numbers, in one pass: a dozen numbers per line stay in memory, and no text."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.answer_metrics import declines, score_answer
from evaluation.scored_rows import Answer, ScoredRow

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
METRICS = ("exact_match", "token_f1", "answer_chars", "answer_tokens")
NO_LABEL = -1


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


class Labels(NamedTuple):
    """One label per line, as a position in `names`, or `NO_LABEL`."""

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

    `counted` lines have both answers and a reference that does not decline: they have metrics. `unanswerable`
    lines have both answers and a reference that declines: they have `declined`. `same`: both answers are
    equal.
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
        """The lines of `mask`."""
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
            numbers = _numbers(answer, row.reference if answered else None, refuses=refuses)
            for name, column in columns.items():
                column[side].append(numbers.get(name, np.nan))
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


def clusters_of(scores: Scores) -> NDArray[np.int64] | None:
    """A cluster number for each line, from 0; None if no two lines share a cluster."""
    codes = scores.clusters.codes.copy()
    alone = codes == NO_LABEL
    codes[alone] = len(scores.clusters.names) + np.arange(int(alone.sum()))
    found, renumbered = np.unique(codes, return_inverse=True)
    return None if len(found) == len(codes) else renumbered.astype(np.int64)
