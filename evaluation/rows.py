"""The lines of a test file with what models answered: the input of all statistics and reports."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar, overload

from phi3flow.phi3_contract import Message

T = TypeVar("T")


class Answer(NamedTuple):
    """A model's answer, how long it took, and its number of tokens; None where that is unknown."""

    text: str
    seconds: float | None
    tokens: int | None = None


class AnsweredPair(NamedTuple):
    """A line that both models answered; paired statistics use only these."""

    row: "ScoredRow"
    base: Answer
    tuned: Answer


@dataclass(frozen=True)
class ScoredRow:
    """A line of the test file with both models' answers; an answer is None where that model failed.

    `line` counts from 1. `messages` is the prompt: everything before the reference answer. Rows with the same
    `cluster` are not independent of each other.
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
class GradedRow:
    """A line of the test file with one model's answer and scores, or with the error instead of them."""

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
    """One model's answers to a whole file. `metrics` are means over the answered lines."""

    rows: Sequence[GradedRow]
    metrics: dict[str, float]
    answered: int

    @property
    def expected(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> int:
        return self.expected - self.answered


def answered_pairs(rows: Iterable[ScoredRow]) -> Iterator[AnsweredPair]:
    """The lines that both models answered, in the order of the file."""
    for row in rows:
        if row.base is not None and row.tuned is not None:
            yield AnsweredPair(row, row.base, row.tuned)


def spread(rows: Sequence[ScoredRow], most: int) -> list[AnsweredPair]:
    """The answered pairs among at most `most` rows, taken at equal distances over the file."""
    return list(answered_pairs(rows[:: -(-len(rows) // most) or 1]))


class Lazy(Sequence[T], Generic[T]):
    """A sequence that makes each item when it is read, so that 100 000 lines need no memory."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "list[T]": ...
    def __getitem__(self, index: int | slice) -> "T | list[T]":
        positions = range(self._length)[index]
        return self._make(positions) if isinstance(positions, int) else [self._make(i) for i in positions]
