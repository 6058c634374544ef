"""Rows -> columns of numbers, in one pass: a dozen numbers per line stay in memory, and no text."""

import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.answer_metrics import score_answer
from evaluation.scored_rows import Answer, ScoredRow
from phi3flow.chats.alike.same_questions import Questions, joined, question_groups
from phi3flow.phi3_contract import Message

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Numbers = NDArray[np.int64]
METRICS = ("exact_match", "token_f1", "answer_chars", "answer_tokens")
STRUCTURED = ("json_valid", "schema_valid", "tool_call_match")  # ours too, where somebody asks for them


class Kind(StrEnum):
    """What the values of a metric are: right or wrong (1 or 0), shares of 0..1, or numbers without bounds."""

    BINARY = "binary"
    SHARE = "share"
    NUMBER = "number"


# Of our own metrics; all others are shares unless whoever measured them says otherwise.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "exact_match": Kind.BINARY,
        "answer_chars": Kind.NUMBER,
        "answer_tokens": Kind.NUMBER,
        "log_likelihood": Kind.NUMBER,
    }
)


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

    `unavailable` maps each metric that cannot be computed to the reason. `package` has its version. `kinds`
    says what the values are where `KINDS` does not.
    """

    columns: dict[str, Column]
    unavailable: dict[str, str]
    package: str = ""
    kinds: Mapping[str, Kind] = MappingProxyType({})


@dataclass(frozen=True)
class Scores:
    """Columns over the same lines. `failed` and `declined` hold 0 or 1.

    `counted` lines have both answers and a reference that does not decline: they have metrics. `unanswerable`
    lines have both answers and a reference that declines: they have `declined`. `same`: both answers are
    equal but for white space and invisible characters. `declining`: the reference declines. Lines of one
    slice, of one question, or of one cluster, have the same number; `slice_numbers` names the slices. A
    cluster holds all lines of its questions.
    """

    slice_numbers: dict[str | None, int]
    slices: Numbers
    questions: Numbers
    clusters: Numbers
    same: Bools
    declining: Bools
    metrics: dict[str, Column]
    failed: Column
    seconds: Column
    declined: Column
    kinds: dict[str, Kind]

    def __len__(self) -> int:
        return len(self.same)

    @property
    def answered(self) -> Bools:
        return (self.failed.base == 0) & (self.failed.tuned == 0)

    @property
    def unanswerable(self) -> Bools:
        return self.answered & self.declining

    @property
    def counted(self) -> Bools:
        return self.answered & ~self.unanswerable

    def kind_of(self, metric: str) -> Kind:
        return self.kinds.get(metric, Kind.SHARE)

    def add(self, measured: Measured) -> None:
        """More metrics of the same lines."""
        self.metrics.update(measured.columns)
        self.kinds.update(measured.kinds)

    def with_failures(self, metric: str) -> Column:
        """A metric of 0..1 over all lines with an answer to match, each failure counted against tuned.

        Where tuned failed it scores 0, where base failed base scores 1.
        """
        column = self.metrics[metric].where(~self.declining)
        return Column(np.nan_to_num(column.base, nan=1.0), np.nan_to_num(column.tuned, nan=0.0))

    def where(self, mask: Bools) -> "Scores":
        """The lines of `mask`."""
        return Scores(
            self.slice_numbers,
            self.slices[mask],
            self.questions[mask],
            self.clusters[mask],
            self.same[mask],
            self.declining[mask],
            {name: column.where(mask) for name, column in self.metrics.items()},
            self.failed.where(mask),
            self.seconds.where(mask),
            self.declined.where(mask),
            self.kinds,
        )


def score_rows(rows: Iterable[ScoredRow]) -> Scores:
    """Score every line once, a line that one model failed to answer for the other."""
    slice_numbers: dict[str | None, int] = {}
    known: dict[str, int] = {}
    questions = Questions()
    slices, labels, same, declining = array("q"), array("q"), bytearray(), bytearray()
    columns = {name: (array("d"), array("d")) for name in ("failed", "seconds", "declined", *METRICS)}
    for row in rows:
        slices.append(slice_numbers.setdefault(row.slice, len(slice_numbers)))
        questions.add(row.messages)
        labels.append(-1 if row.cluster is None else known.setdefault(row.cluster, len(known)))
        refuses = row.declining
        declining.append(refuses)
        same.append(row.base is not None and row.tuned is not None and _same(row.base.text, row.tuned.text))
        for side, answer in enumerate((row.base, row.tuned)):
            numbers = _numbers(row, answer, refuses=refuses)
            for name, column in columns.items():
                column[side].append(numbers.get(name, np.nan))
    made = {name: Column(*(np.array(side, dtype=float) for side in both)) for name, both in columns.items()}
    metrics = {name: made.pop(name) for name in METRICS}
    groups = questions.groups()
    clusters = united(groups, np.array(labels, dtype=np.int64))
    return Scores(
        slice_numbers,
        np.array(slices),
        groups,
        clusters,
        np.array(same, bool),
        np.array(declining, bool),
        metrics,
        kinds=dict(KINDS),
        **made,
    )


def _same(one: str, other: str) -> bool:
    return one == other or _visible(one) == _visible(other)


def _visible(text: str) -> str:
    seen = "".join(
        " " if unicodedata.category(c) == "Cc" else c for c in text if unicodedata.category(c) != "Cf"
    )
    return " ".join(seen.split())


def row_clusters(prompts: Iterable[Sequence[Message]], labels: Iterable[str | None]) -> Numbers:
    """A cluster number for each row: rows with the same question or label are in one cluster."""
    known: dict[str, int] = {}
    numbers = [-1 if label is None else known.setdefault(label, len(known)) for label in labels]
    return united(question_groups(prompts), np.array(numbers, dtype=np.int64))


def united(questions: Numbers, labels: Numbers) -> Numbers:
    """Lines with the same question or the same label, -1 for none, are in one cluster."""
    labelled = labels >= 0
    if not labelled.any():
        return questions
    count = int(questions.max()) + 1
    others = np.where(labelled, count + labels, questions)
    return joined(questions, others)[questions]


def _numbers(row: ScoredRow, answer: Answer | None, *, refuses: bool) -> dict[str, float]:
    """The numbers of one answer, by column."""
    if answer is None:
        return {"failed": 1.0}
    numbers = {"failed": 0.0} | ({} if answer.seconds is None else {"seconds": answer.seconds})
    if refuses:
        return numbers | {"declined": float(row.is_declined_by(answer))}
    tokens = {} if answer.tokens is None else {"answer_tokens": float(answer.tokens)}
    return numbers | score_answer(answer.text, row.reference) | tokens


def clusters_of(scores: Scores) -> Numbers | None:
    """A cluster number for each line, from 0; None if no two lines share a cluster."""
    return repeated(scores.clusters)


def repeated(groups: Numbers) -> Numbers | None:
    """The same groups, numbered from 0; None if no two have the same number."""
    found, renumbered = np.unique(groups, return_inverse=True)
    return None if len(found) == len(renumbered) else renumbered.astype(np.int64)
