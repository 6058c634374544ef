"""The rows worth reading: where tuning cost most, and where it gained most."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.answer_metrics import declines, score_answer
from evaluation.report.word_diff import SideBySide, word_diff
from evaluation.rows import Judged

SHOWN = 8


@dataclass(frozen=True)
class Example:
    """One row for the page; the answers are HTML with their differing words marked."""

    line: int
    slice: str | None
    question: str
    earlier_turns: int
    reference: str
    answers: SideBySide


@dataclass(frozen=True)
class Examples:
    """The worst losses and the best gains, worst and best first, with how many there are in all."""

    losses: list[Example]
    gains: list[Example]
    lost: int
    gained: int


def pick_examples(rows: Sequence[Judged], primary: str) -> Examples:
    """Rank by the primary metric, then by token F1; rows that score alike are neither loss nor gain.

    Only the rows to be shown are held in memory.
    """
    changed = [(change, i) for i, row in enumerate(rows) if (change := _change(row, primary))[0]]
    losses = sorted(ranked for ranked in changed if ranked[0][0] < 0)
    gains = sorted(
        (ranked for ranked in changed if ranked[0][0] > 0), key=lambda ranked: ranked[0], reverse=True
    )
    return Examples(
        [_example(rows[i]) for _, i in losses[:SHOWN]],
        [_example(rows[i]) for _, i in gains[:SHOWN]],
        len(losses),
        len(gains),
    )


def _change(row: Judged, primary: str) -> tuple[float, float]:
    """Tuned minus base in the primary metric and in token F1; 0 for rows that do not count."""
    if row.base is None or row.tuned is None or declines(row.reference):
        return 0.0, 0.0
    base, tuned = (score_answer(answer.text, row.reference) for answer in (row.base, row.tuned))
    return tuned[primary] - base[primary], tuned["token_f1"] - base["token_f1"]


def _example(row: Judged) -> Example:
    assert row.base is not None  # noqa: S101 - rows that changed have both answers; said for the type checker
    assert row.tuned is not None  # noqa: S101
    return Example(
        line=row.line,
        slice=row.slice,
        question=row.messages[-1]["content"] if row.messages else "",
        earlier_turns=max(len(row.messages) - 1, 0),
        reference=row.reference,
        answers=word_diff(row.base.text, row.tuned.text),
    )
