"""A judge's preferences, summed up with its biases.

They have a verdict of their own, which decides the comparison only if the gate's primary metric is the win
rate.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.judge.grades import GradeContrast
from evaluation.judge.pairwise import Judgment
from evaluation.statistics.formats import percent
from evaluation.statistics.intervals import Interval, wilson
from evaluation.statistics.win_rate import WinRate, win_rate
from evaluation.verdict.decision import Verdict
from evaluation.verdict.gate import Gate
from evaluation.verdict.preference_decision import decide_preference

NAMED_FLIPS = 0.1  # order bias: the CI of the share of flips lies above this


@dataclass(frozen=True)
class Order:
    """Of `n` lines asked in both orders: how many choices changed, and to which position."""

    n: int
    flipped: int
    flipped_ci: Interval | None
    to_first: int
    to_second: int


@dataclass(frozen=True)
class Length:
    """Of `n` lines with a preference and unequal lengths: how often the longer answer was preferred."""

    n: int
    longer: int
    longer_ci: Interval | None


@dataclass(frozen=True, kw_only=True)
class Judging(Verdict):
    """The judge's part of the report. `addressed` counts the answers that address the judge, by side."""

    judge: str
    expected: int
    failed: int
    failures: dict[str, int]
    addressed: dict[str, int]
    identical: int
    preference: WinRate
    order: Order
    length: Length
    biases: list[str]
    grades: dict[str, GradeContrast]


def sum_up(
    judge: str,
    judgments: Sequence[Judgment],
    gate: Gate,
    grades: Mapping[str, GradeContrast] | None = None,
    *,
    unanswered: int = 0,
) -> Judging:
    """Win rates, biases and the gate's verdict. Lines without a preference are in no average.

    `unanswered` counts the lines that were not judged, because a model did not answer.
    """
    rate = win_rate(judgments)
    order, length = _order(judgments), _length(judgments)
    failed = [judgment.error for judgment in judgments if judgment.error]
    addressed = Counter(side for judgment in judgments for side in judgment.addressed)
    failures = Counter(one.failure for one in judgments if one.failure)
    verdict = decide_preference(rate, gate, failures, unanswered=unanswered)
    return Judging(
        **vars(verdict),
        judge=judge,
        expected=len(judgments),
        failed=len(failed),
        failures=dict(Counter(failed).most_common()),
        addressed={side: addressed[side] for side in ("base", "tuned")},
        identical=sum(one.preference is not None and one.first_order is None for one in judgments),
        preference=rate,
        order=order,
        length=length,
        biases=_biases(order, length, rate),
        grades=dict(grades or {}),
    )


def judgment_rows(judgments: Sequence[Judgment]) -> list[dict[str, Any]]:
    """One row for each line, as `phi3flow verdict` reads them, with the choice in each order."""
    rows = []
    for one in judgments:
        row = asdict(one) | {"error": one.failure}
        left_out = {"addressed"} if one.failure else {"addressed", "error"}
        left_out |= set() if one.cluster else {"cluster"}
        rows.append({name: value for name, value in row.items() if name not in left_out})
    return rows


def _order(judgments: Sequence[Judgment]) -> Order:
    asked = [(one.first_order, one.second_order) for one in judgments if one.first_order and one.second_order]
    to_first, to_second = asked.count(("base", "tuned")), asked.count(("tuned", "base"))
    flipped = to_first + to_second
    return Order(len(asked), flipped, wilson(flipped, len(asked)), to_first, to_second)


def _length(judgments: Sequence[Judgment]) -> Length:
    longer = [
        (one.preference == 1) == (one.tuned_chars > one.base_chars)
        for one in judgments
        if one.preference in {0.0, 1.0} and one.tuned_chars != one.base_chars
    ]
    return Length(len(longer), sum(longer), wilson(sum(longer), len(longer)))


def _biases(order: Order, length: Length, rate: WinRate) -> list[str]:
    biases = []
    if order.flipped_ci and order.flipped_ci.low > NAMED_FLIPS:
        biases.append(
            f"Order bias: the judge changed its choice in {order.flipped} of {order.n} rows when the answers "
            f"were swapped ({order.to_first} times to the first answer, {order.to_second} to the second). "
            "These rows count as ties."
        )
    if _follows_length(length, rate):
        biases.append(
            f"Possible length bias: the longer answer was preferred in {length.longer} of {length.n} rows"
            f"{_at_equal_length(rate)}."
        )
    return biases


def _follows_length(length: Length, rate: WinRate) -> bool:
    """By the regression's coefficient; where there is none, by the share that went to the longer answer."""
    if effect := rate.length.effect_ci:
        return effect.low > 0 or effect.high < 0
    return length.longer_ci is not None and (length.longer_ci.low > 0.5 or length.longer_ci.high < 0.5)


def _at_equal_length(rate: WinRate) -> str:
    if rate.length.win_rate is None:
        return f"; {rate.length.note}"
    return f"; at equal length tuned would win {percent(rate.length.win_rate)}, not {percent(rate.win_rate)}"
