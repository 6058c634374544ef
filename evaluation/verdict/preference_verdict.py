"""Promote, hold, or not enough data, from preferences between the two answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.statistics.formats import counted, percent
from evaluation.statistics.intervals import Interval
from evaluation.statistics.win_rate import WinRate, rows_to_clear
from evaluation.verdict.decision import Decision, Verdict
from evaluation.verdict.gate import Gate

SHOWN = 3  # reasons of failed rows


@dataclass(frozen=True)
class PreferenceVerdict:
    """The word and why, and the rows at which it would be settled where more rows would do."""

    decision: Decision
    reasons: list[str]
    rows_needed: int | None


def decide_preference(
    rate: WinRate, gate: Gate, failures: Mapping[str, int] | None = None
) -> PreferenceVerdict:
    """The gate's rule on win rates: the interval against one half plus the margin.

    The win rate as it came and the one at equal length must both lie above it: answers that are merely longer
    promote nothing. The one at equal length holds: answers that are merely shorter are not held for it.
    `failures` counts the rows without a preference, by reason: beyond the gate's share, what is left promotes
    nothing.
    """
    bound = 0.5 + gate.margin
    needed = rows_to_clear(rate, bound, gate.min_rows)
    verdict = _by_intervals(rate, bound, gate)
    if verdict.decision is Decision.NOT_ENOUGH_DATA and rate.n:
        verdict.reasons.append(_what_would_settle(rate, needed, gate))
    word, lost = verdict.decision, sum((failures or {}).values())
    told = f"{lost} of {rate.n + lost} rows have no preference{_why(failures or {})}"
    if lost > gate.max_failed_share * (rate.n + lost):
        first = f"{told}, more than the {percent(gate.max_failed_share)} that the gate allows."
        word = Decision.NOT_ENOUGH_DATA if word is Decision.PROMOTE else word
        return PreferenceVerdict(word, [first, *verdict.reasons], needed)
    return PreferenceVerdict(word, verdict.reasons + ([f"{told}."] if lost else []), needed)


def _why(failures: Mapping[str, int]) -> str:
    """The most frequent reasons, with their counts."""
    first = sorted(failures.items(), key=lambda one: -one[1])[:SHOWN]
    more = ", ..." if len(failures) > SHOWN else ""
    return " (" + ", ".join(f"{count}: {why}" for why, count in first) + more + ")"


def _by_intervals(rate: WinRate, bound: float, gate: Gate) -> Verdict:
    overall, length = rate.win_rate_ci, rate.length
    if overall is None:
        return Verdict(Decision.NOT_ENOUGH_DATA, ["There is no preference to count."])
    seen = [_seen("Tuned wins", rate.win_rate, overall) + f", {counted(rate.n, 'row')}, ties half."]
    if length.win_rate_ci is None:
        why = f"There is no win rate at equal length: {length.note}."
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, why])
    seen.append(_seen("At equal length it would win", length.win_rate, length.win_rate_ci) + ".")
    against = f"{percent(bound)}, one half plus the gate's margin"
    if length.win_rate_ci.high <= bound:
        return Verdict(
            Decision.HOLD, [*seen, f"At equal length the interval does not reach above {against}."]
        )
    if min(overall.low, length.win_rate_ci.low) <= bound:
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, f"Not both intervals lie above {against}."])
    if rate.n < gate.min_rows:
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, f"The gate asks for at least {gate.min_rows} rows."])
    return Verdict(Decision.PROMOTE, [*seen, f"Both intervals lie above {against}."])


def _seen(what: str, share: float | None, interval: Interval) -> str:
    return f"{what} {percent(share)} (95 % interval {percent(interval.low)} to {percent(interval.high)})"


def _what_would_settle(rate: WinRate, needed: int | None, gate: Gate) -> str:
    if needed is None and rate.n < gate.min_rows:
        return f"That is too few to say more: the gate asks for at least {counted(gate.min_rows, 'row')}."
    if needed is None:
        bound = percent(0.5 + gate.margin)
        return f"A win rate seen does not exceed {bound}, so more rows like these would not promote it."
    return f"About {needed} rows like these would settle it (80 % power)."
