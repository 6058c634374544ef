"""One test line with what both models answered to it; everything the statistics ever see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from phi3flow.phi3_contract import Message


class Answer(NamedTuple):
    """What a model replied, after how long, and in how many tokens; None where nobody told."""

    text: str
    seconds: float | None
    tokens: int | None = None


class AnsweredPair(NamedTuple):
    """A line that both models answered: the only lines a paired comparison can use."""

    row: "Judged"
    base: Answer
    tuned: Answer


@dataclass(frozen=True)
class Judged:
    """A line of the test file, joined with both answers. An answer is None where that model's line failed.

    `messages` is the prompt: everything before the reference answer. Rows of one `cluster`
    depend on each other.
    """

    line: int
    prompt_id: str | None
    slice: str | None
    messages: Sequence[Message]
    reference: str
    base: Answer | None
    tuned: Answer | None
    cluster: str | None = None


@dataclass(frozen=True)
class Graded:
    """A line of the test file with one endpoint's answer; what is None failed, and `error` says why."""

    line: int
    prompt_id: str | None
    slice: str | None
    messages: Sequence[Message]
    reference: str
    answer: str | None
    error: str | None
    scores: dict[str, float] | None


@dataclass(frozen=True)
class Evaluation:
    """One endpoint's batch: every line of the file, and the grade flow's means over those it answered."""

    rows: Sequence[Graded]
    metrics: dict[str, float]
    answered: int

    @property
    def expected(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> int:
        return self.expected - self.answered


def answered_pairs(rows: Sequence[Judged]) -> list[AnsweredPair]:
    """The lines without a failure, in the order of the file."""
    return [
        AnsweredPair(row, row.base, row.tuned)
        for row in rows
        if row.base is not None and row.tuned is not None
    ]
