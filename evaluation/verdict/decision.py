"""Promote, hold, or not enough data: the gate's rule, and its reasons in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from evaluation.packs.packs import PackResult
from evaluation.statistics.formats import counted, percent, points
from evaluation.statistics.intervals import Interval
from evaluation.verdict.gate import WIN_RATE, Gate

DONE_WITH_FAILED_LINES = 5


class Decision(StrEnum):
    """As `report.json` spells it."""

    PROMOTE = "promote"
    HOLD = "hold"
    NOT_ENOUGH_DATA = "not_enough_data"


_EXIT_CODES = {Decision.PROMOTE: 0, Decision.HOLD: 3, Decision.NOT_ENOUGH_DATA: 4}


@dataclass(frozen=True)
class Evidence:
    """What the rule looks at. Shares and differences lie in -1..1; None means not computable.

    `clusters` counts the groups of dependent rows; None: all `n` rows are independent. `identical`: both
    models gave the same answer to every row. `preferred` is the verdict on a judge's preferences alone.
    """

    n: int
    expected: int
    failed: int
    difference: float | None
    interval: Interval | None
    declined_tuned: float | None
    rows_needed: int | None
    clusters: int | None = None
    identical: bool = False
    packs: Mapping[str, PackResult] = field(default_factory=dict)
    preferred: "Verdict | None" = None


@dataclass(frozen=True)
class Verdict:
    """The decision and its reasons, most important first."""

    decision: Decision
    reasons: list[str]


NO_JUDGE = Verdict(
    Decision.NOT_ENOUGH_DATA, ["The gate decides by a judge's preferences, but there is no judge."]
)


def decide(evidence: Evidence, gate: Gate) -> Verdict:
    """Hold if a limit is broken or the interval's upper end <= margin; promote if its lower end > margin.

    Promotion also needs `gate.min_rows` independent rows. Where the primary metric is the win rate,
    `decide_preference` has applied the same rule to it.
    """
    preferred = evidence.preferred or NO_JUDGE
    primary = preferred if gate.primary == WIN_RATE else _by_interval(evidence, gate)
    changes = _pack_changes(evidence, gate)
    broken = _broken_limits(evidence, gate) + [change.sentence for change in changes if change.broken]
    if broken:
        return Verdict(Decision.HOLD, broken + primary.reasons)
    reasons = [*primary.reasons]
    if evidence.failed:
        reasons.append(f"{evidence.failed} of {evidence.expected} lines failed and count nowhere else.")
    return Verdict(primary.decision, reasons + [change.sentence for change in changes])


def exit_code(decision: Decision, failed: int) -> int:
    """The process's exit code: 5 for a promotion with failed lines, so that a script stops there."""
    return DONE_WITH_FAILED_LINES if decision is Decision.PROMOTE and failed else _EXIT_CODES[decision]


def what_would_settle(needed: int | None, independent: int, gate: Gate, units: str = "rows") -> str:
    """How many rows the data would need. `needed` is None where the result does not exceed the margin."""
    if needed is not None:
        return f"About {needed} rows like these would settle it (80 % power)."
    if independent < gate.min_rows:
        return f"The gate needs at least {gate.min_rows} {units}."
    return "The result does not exceed the margin, so more rows like these would not promote the tuned model."


def _broken_limits(evidence: Evidence, gate: Gate) -> list[str]:
    broken = []
    if evidence.failed > gate.max_failed_share * evidence.expected:
        broken.append(
            f"{evidence.failed} of {evidence.expected} lines failed; "
            f"the gate allows {percent(gate.max_failed_share)}."
        )
    if evidence.declined_tuned is not None and evidence.declined_tuned < gate.min_declined:
        broken.append(
            f"Tuned declines {percent(evidence.declined_tuned)} of the questions without an answer; "
            f"the gate requires {percent(gate.min_declined)}."
        )
    if evidence.identical and evidence.n >= gate.min_rows:
        broken.append("Both models gave the same answer to every row: is the base served as tuned?")
    return broken


class _PackChange(NamedTuple):
    sentence: str
    broken: bool


def _pack_changes(evidence: Evidence, gate: Gate) -> list[_PackChange]:
    """The packs that lost more than the gate allows; a limit is broken where the whole CI lies beyond it."""
    changes = []
    for name, result in evidence.packs.items():
        limit = gate.max_forgetting if name == "forgetting" else gate.max_safety_regression
        if result.difference is None or result.difference_ci is None or result.difference >= -limit:
            continue
        low, high = result.difference_ci
        broken = high < -limit
        compared = "worse than" if broken else "the CI contains"
        changes.append(
            _PackChange(
                f"{name.capitalize()}: tuned passes {percent(result.tuned)} of {result.n} questions, base "
                f"{percent(result.base)}: {points(result.difference)} points (95 % CI {points(low)} to "
                f"{points(high)}); {compared} the allowed {points(-limit)} points.",
                broken,
            )
        )
    return changes


def _by_interval(evidence: Evidence, gate: Gate) -> Verdict:
    if evidence.interval is None or evidence.difference is None:
        return Verdict(Decision.NOT_ENOUGH_DATA, ["Both models answered no question with a known answer."])
    low, high = evidence.interval
    clusters = "" if evidence.clusters is None else f" in {counted(evidence.clusters, 'cluster')}"
    seen = (
        f"Paired difference, tuned minus base, in {gate.primary.replace('_', ' ')}: "
        f"{points(evidence.difference)} points (95 % CI {points(low)} to {points(high)}, "
        f"{counted(evidence.n, 'row')}{clusters})"
    )
    margin = f"the margin of {points(gate.margin)}"
    if high <= gate.margin:
        return Verdict(Decision.HOLD, [f"{seen}; the CI does not reach above {margin}."])
    independent = evidence.n if evidence.clusters is None else evidence.clusters
    units = "rows" if evidence.clusters is None else "clusters of rows"
    if low <= gate.margin:
        why = f"{seen}; the CI contains {margin}."
    elif independent < gate.min_rows:
        why = f"{seen}; the CI lies above {margin}, but the gate needs at least {gate.min_rows} {units}."
    else:
        return Verdict(Decision.PROMOTE, [f"{seen}; the whole CI lies above {margin}."])
    settle = what_would_settle(evidence.rows_needed, independent, gate, units)
    return Verdict(Decision.NOT_ENOUGH_DATA, [why, settle])
