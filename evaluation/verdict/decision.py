"""Promote, hold, or not enough data: one rule, and the reasons in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from evaluation.packs.pack_results import PackResult
from evaluation.statistics.formats import counted, percent, points
from evaluation.statistics.intervals import Interval
from evaluation.verdict.gate import WIN_RATE, Gate

DONE_WITH_FAILED_LINES = 5


class Decision(StrEnum):
    """A verdict, as `report.json` spells it."""

    PROMOTE = "promote"
    HOLD = "hold"
    NOT_ENOUGH_DATA = "not_enough_data"


_EXIT_CODES = {Decision.PROMOTE: 0, Decision.HOLD: 3, Decision.NOT_ENOUGH_DATA: 4}


@dataclass(frozen=True)
class Evidence:
    """What the rule looks at. Shares and differences lie in -1..1; None: not computable from these rows.

    `clusters` counts the groups of dependent rows; None: all `n` rows are independent. `identical`: both
    models gave the same answer to every row. `preferred` is what a judge's preferences alone say.
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
    """The word, and why, most important first."""

    decision: Decision
    reasons: list[str]


NOBODY_ASKED = Verdict(
    Decision.NOT_ENOUGH_DATA, ["The gate goes by a judge's preferences, and no judge was asked."]
)


def decide(evidence: Evidence, gate: Gate) -> Verdict:
    """A broken limit, or the interval's upper end <= margin: hold. Lower end > margin: promote. Else open.

    Promoting also takes `gate.min_rows` rows: below, the interval is narrower than it should be. Where the
    primary metric is the win rate, `decide_preference` has applied the same rule to it.
    """
    broken = _broken_limits(evidence, gate)
    if gate.primary == WIN_RATE:
        preferred = evidence.preferred or NOBODY_ASKED
        word, reasons = preferred.decision, [*preferred.reasons]
    else:
        word, reasons = _by_interval(evidence, gate)
    if broken:
        return Verdict(Decision.HOLD, broken + reasons)
    if evidence.failed:
        reasons.append(f"{evidence.failed} of {evidence.expected} lines failed and are left out.")
    reasons += [change.sentence for change in _pack_changes(evidence, gate)]
    return Verdict(word, reasons)


def exit_code(decision: Decision, failed: int) -> int:
    """The process's exit code. A promotion with failed lines is 5, so that a script stops for a look."""
    return DONE_WITH_FAILED_LINES if decision is Decision.PROMOTE and failed else _EXIT_CODES[decision]


def _broken_limits(evidence: Evidence, gate: Gate) -> list[str]:
    broken = []
    if evidence.failed > gate.max_failed_share * evidence.expected:
        broken.append(
            f"{evidence.failed} of {evidence.expected} lines failed; "
            f"the gate allows a share of {percent(gate.max_failed_share)}."
        )
    if evidence.declined_tuned is not None and evidence.declined_tuned < gate.min_declined:
        broken.append(
            f"Tuned declines {percent(evidence.declined_tuned)} of the questions that have no answer; "
            f"the gate asks for {percent(gate.min_declined)}."
        )
    if evidence.identical and evidence.n >= gate.min_rows:
        broken.append("Both models gave the same answer to every row: is the base served as tuned?")
    changes = _pack_changes(evidence, gate)
    return broken + [change.sentence for change in changes if change.surely]


class _PackChange(NamedTuple):
    sentence: str
    surely: bool


def _pack_changes(evidence: Evidence, gate: Gate) -> list[_PackChange]:
    """The packs of which tuned passes fewer than the gate allows; surely, where chance hardly explains it."""
    changes = []
    for name, result in evidence.packs.items():
        limit = gate.max_forgetting if name == "forgetting" else gate.max_safety_regression
        if result.difference is None or result.difference_ci is None or result.difference >= -limit:
            continue
        surely = result.difference_ci.high < -limit
        passes = (
            f"{name.capitalize()}: tuned passes {percent(result.tuned)} of {result.n} questions, base "
            f"{percent(result.base)}"
        )
        allowed = f"the {100 * limit:.1f} points that the gate allows to lose"
        interval = (
            f"(95 % interval {points(result.difference_ci.low)} to {points(result.difference_ci.high)})"
        )
        told = f"surely more than {allowed}" if surely else f"which may be chance, beside {allowed}"
        changes.append(
            _PackChange(f"{passes}: {points(result.difference)} points {interval}, {told}.", surely)
        )
    return changes


def _by_interval(evidence: Evidence, gate: Gate) -> tuple[Decision, list[str]]:
    if evidence.interval is None or evidence.difference is None:
        return Decision.NOT_ENOUGH_DATA, ["No question with a known answer was answered by both models."]
    low, high = evidence.interval
    seen = (
        f"Tuned minus base is {points(evidence.difference)} points in {_words(gate.primary)} "
        f"(95 % interval {points(low)} to {points(high)}, "
        f"{counted(evidence.n, 'row')}{_in_clusters(evidence)})"
    )
    margin = f"the margin of {points(gate.margin)}"
    if high <= gate.margin:
        return Decision.HOLD, [f"{seen}: the interval does not reach above {margin}."]
    independent = evidence.n if evidence.clusters is None else evidence.clusters
    if low > gate.margin and independent >= gate.min_rows:
        return Decision.PROMOTE, [f"{seen}: the whole interval lies above {margin}."]
    if low > gate.margin:
        why = f"{seen}: above {margin}, but the gate asks for at least {gate.min_rows} {_units(evidence)}."
    else:
        why = f"{seen}: the interval still contains {margin}."
    return Decision.NOT_ENOUGH_DATA, [why, _what_would_settle(evidence, independent, gate)]


def _what_would_settle(evidence: Evidence, independent: int, gate: Gate) -> str:
    if evidence.rows_needed is None and independent < gate.min_rows:
        return f"That is too few to say more: the gate asks for at least {gate.min_rows} {_units(evidence)}."
    if evidence.rows_needed is None:
        return "The difference seen does not exceed the margin, so more rows like these would not promote it."
    return f"About {evidence.rows_needed} rows like these would settle it (80 % power)."


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _in_clusters(evidence: Evidence) -> str:
    return "" if evidence.clusters is None else f" in {counted(evidence.clusters, 'cluster')}"


def _units(evidence: Evidence) -> str:
    return "rows" if evidence.clusters is None else "clusters of rows"
