"""Promote, hold, or not enough data: the gate's rule, and its reasons in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from evaluation.packs.packs import PackResult
from evaluation.statistics.contrasts import Contrast
from evaluation.statistics.formats import counted, percent, points
from evaluation.statistics.intervals import Interval
from evaluation.statistics.win_rate import WinRate, rows_to_clear
from evaluation.verdict.gate import Gate

DONE_WITH_FAILED_LINES = 5
SHOWN_FAILURES = 3  # reasons of failed rows


class Decision(StrEnum):
    """As `report.json` spells it."""

    PROMOTE = "promote"
    HOLD = "hold"
    NOT_ENOUGH_DATA = "not_enough_data"


_EXIT_CODES = {Decision.PROMOTE: 0, Decision.HOLD: 3, Decision.NOT_ENOUGH_DATA: 4}


@dataclass(frozen=True)
class Verdict:
    """The decision and its reasons, most important first.

    `rows_needed` is the number of rows that would settle it; None where more rows would not.
    """

    verdict: Decision
    reasons: list[str]
    rows_needed: int | None = None


NO_JUDGE = Verdict(
    Decision.NOT_ENOUGH_DATA, ["The gate decides by a judge's preferences, but there is no judge."]
)


def decide(
    primary: Verdict,
    gate: Gate,
    *,
    expected: int,
    failed: int,
    declined_tuned: float | None,
    identical: bool,
    packs: Mapping[str, PackResult],
) -> Verdict:
    """Hold if a limit of the gate is broken, else what the primary metric alone leads to.

    `expected` and `failed` count lines. `declined_tuned` is the share of the questions without an answer that
    tuned declines, None if there are none. `identical`: both models gave the same answer to every row, and
    there are enough rows.
    """
    broken = []
    if failed > gate.max_failed_share * expected:
        allowed = percent(gate.max_failed_share)
        broken.append(f"{failed} of {expected} lines failed; the gate allows {allowed}.")
    if declined_tuned is not None and declined_tuned < gate.min_declined:
        broken.append(
            f"Tuned declines {percent(declined_tuned)} of the questions without an answer; "
            f"the gate requires {percent(gate.min_declined)}."
        )
    if identical:
        broken.append("Both models gave the same answer to every row: is the base served as tuned?")
    changes = _pack_changes(packs, gate)
    broken += [sentence for sentence, is_broken in changes.items() if is_broken]
    if broken:
        return Verdict(Decision.HOLD, broken + primary.reasons, primary.rows_needed)
    told = [f"{failed} of {expected} lines failed and count nowhere else."] if failed else []
    return Verdict(primary.verdict, [*primary.reasons, *told, *changes], primary.rows_needed)


def exit_code(decision: Decision, failed: int) -> int:
    """The process's exit code: 5 for a promotion with failed lines, so that a script stops there."""
    return DONE_WITH_FAILED_LINES if decision is Decision.PROMOTE and failed else _EXIT_CODES[decision]


def decide_metric(contrast: Contrast, clusters: int | None, rows_needed: int | None, gate: Gate) -> Verdict:
    """Hold if the upper end of the primary metric's CI <= margin; promote if its lower end > margin.

    Promotion also needs `gate.min_rows` independent rows. `clusters` counts the groups of dependent rows;
    None: all rows are independent.
    """
    if contrast.difference_ci is None:
        why = "Both models answered no question with a known answer."
        return Verdict(Decision.NOT_ENOUGH_DATA, [why], rows_needed)
    low, high = contrast.difference_ci
    inside = "" if clusters is None else f" in {counted(clusters, 'cluster')}"
    seen = (
        f"Paired difference, tuned minus base, in {gate.primary.replace('_', ' ')}: "
        f"{points(contrast.difference)} points (95 % CI {points(low)} to {points(high)}, "
        f"{counted(contrast.n, 'row')}{inside})"
    )
    margin = f"the margin of {points(gate.margin)}"
    independent = contrast.n if clusters is None else clusters
    units = "rows" if clusters is None else "clusters of rows"
    decision = Decision.NOT_ENOUGH_DATA
    if high <= gate.margin:
        decision, why = Decision.HOLD, f"the CI does not reach above {margin}"
    elif low <= gate.margin:
        why = f"the CI contains {margin}"
    elif independent < gate.min_rows:
        why = f"the CI lies above {margin}, but the gate needs at least {gate.min_rows} {units}"
    else:
        decision, why = Decision.PROMOTE, f"the whole CI lies above {margin}"
    reasons = [f"{seen}; {why}."]
    if decision is Decision.NOT_ENOUGH_DATA:
        reasons.append(_what_would_settle(rows_needed, independent, gate, units))
    return Verdict(decision, reasons, rows_needed)


def decide_preference(rate: WinRate, gate: Gate, failures: Mapping[str, int] | None = None) -> Verdict:
    """Apply the gate's rule to win rates: their intervals against one half plus the margin.

    Promotion needs both win rates above it, so an answer gains nothing by being longer. Hold needs the one at
    equal length below it, so an answer loses nothing by being shorter. `failures` counts the rows without a
    preference, by reason; beyond `max_failed_share` nothing is promoted.
    """
    bound = 0.5 + gate.margin
    needed = rows_to_clear(rate, bound, gate.min_rows)
    verdict = _by_intervals(rate, bound, gate)
    decision, reasons = verdict.verdict, [*verdict.reasons]
    if decision is Decision.NOT_ENOUGH_DATA and rate.n:
        reasons.append(_what_would_settle(needed, rate.n, gate))
    failed = sum((failures or {}).values())
    rows = rate.n + failed
    told = f"{failed} of {rows} rows have no preference{_why(failures or {})}"
    if failed > gate.max_failed_share * rows:
        reasons.insert(0, f"{told}; the gate allows {percent(gate.max_failed_share)}.")
        decision = Decision.NOT_ENOUGH_DATA if decision is Decision.PROMOTE else decision
    elif failed:
        reasons.append(f"{told}.")
    return Verdict(decision, reasons, needed)


def _why(failures: Mapping[str, int]) -> str:
    """The most frequent reasons, with their counts."""
    first = sorted(failures.items(), key=lambda one: -one[1])[:SHOWN_FAILURES]
    more = ", ..." if len(failures) > SHOWN_FAILURES else ""
    return " (" + ", ".join(f"{count}: {why}" for why, count in first) + more + ")"


def _by_intervals(rate: WinRate, bound: float, gate: Gate) -> Verdict:
    overall, length = rate.win_rate_ci, rate.length
    if overall is None:
        return Verdict(Decision.NOT_ENOUGH_DATA, ["There are no preferences."])
    seen = [_seen("Tuned wins", rate.win_rate, overall) + f", {counted(rate.n, 'row')}, ties count half."]
    if length.win_rate_ci is None:
        why = f"There is no win rate at equal length: {length.note}."
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, why])
    seen.append(_seen("At equal length tuned would win", length.win_rate, length.win_rate_ci) + ".")
    against = f"{percent(bound)}, one half plus the margin"
    if length.win_rate_ci.high <= bound:
        return Verdict(Decision.HOLD, [*seen, f"At equal length the CI does not reach above {against}."])
    if min(overall.low, length.win_rate_ci.low) <= bound:
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, f"Not both CIs lie above {against}."])
    if rate.n < gate.min_rows:
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, f"The gate needs at least {gate.min_rows} rows."])
    return Verdict(Decision.PROMOTE, [*seen, f"Both CIs lie above {against}."])


def _seen(what: str, share: float | None, interval: Interval) -> str:
    return f"{what} {percent(share)} (95 % CI {percent(interval.low)} to {percent(interval.high)})"


def _what_would_settle(needed: int | None, independent: int, gate: Gate, units: str = "rows") -> str:
    """How many rows the data would need. `needed` is None where the result does not exceed the margin."""
    if needed is not None:
        return f"About {needed} rows like these would settle it (80 % power)."
    if independent < gate.min_rows:
        return f"The gate needs at least {gate.min_rows} {units}."
    return "The result does not exceed the margin, so more rows like these would not promote the tuned model."


def _pack_changes(packs: Mapping[str, PackResult], gate: Gate) -> dict[str, bool]:
    """Of each pack that lost more than the gate allows a sentence, and whether its whole CI lies beyond."""
    changes = {}
    for name, result in packs.items():
        limit = gate.max_forgetting if name == "forgetting" else gate.max_safety_regression
        if result.difference is None or result.difference_ci is None or result.difference >= -limit:
            continue
        low, high = result.difference_ci
        broken = high < -limit
        compared = "worse than" if broken else "the CI contains"
        sentence = (
            f"{name.capitalize()}: tuned passes {percent(result.tuned)} of {result.n} questions, base "
            f"{percent(result.base)}: {points(result.difference)} points (95 % CI {points(low)} to "
            f"{points(high)}); {compared} the allowed {points(-limit)} points."
        )
        changes[sentence] = broken
    return changes
