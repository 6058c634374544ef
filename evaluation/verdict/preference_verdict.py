"""Promote, hold, or not enough data, from preferences between the two answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.statistics.formats import counted, percent
from evaluation.statistics.intervals import Interval
from evaluation.statistics.win_rate import WinRate, rows_to_clear
from evaluation.verdict.decision import Decision, Verdict, what_would_settle
from evaluation.verdict.gate import Gate

SHOWN = 3  # reasons of failed rows


@dataclass(frozen=True)
class PreferenceVerdict(Verdict):
    """With the number of rows that would settle it, None where more rows would not."""

    rows_needed: int | None


def decide_preference(
    rate: WinRate, gate: Gate, failures: Mapping[str, int] | None = None
) -> PreferenceVerdict:
    """Apply the gate's rule to win rates: their intervals against one half plus the margin.

    Promotion needs both win rates above it, so an answer gains nothing by being longer. Hold needs the one at
    equal length below it, so an answer loses nothing by being shorter. `failures` counts the rows without a
    preference, by reason; beyond `max_failed_share` nothing is promoted.
    """
    bound = 0.5 + gate.margin
    needed = rows_to_clear(rate, bound, gate.min_rows)
    verdict = _by_intervals(rate, bound, gate)
    decision, reasons = verdict.decision, [*verdict.reasons]
    if decision is Decision.NOT_ENOUGH_DATA and rate.n:
        reasons.append(what_would_settle(needed, rate.n, gate))
    failed = sum((failures or {}).values())
    rows = rate.n + failed
    told = f"{failed} of {rows} rows have no preference{_why(failures or {})}"
    if failed > gate.max_failed_share * rows:
        reasons.insert(0, f"{told}; the gate allows {percent(gate.max_failed_share)}.")
        decision = Decision.NOT_ENOUGH_DATA if decision is Decision.PROMOTE else decision
    elif failed:
        reasons.append(f"{told}.")
    return PreferenceVerdict(decision, reasons, needed)


def _why(failures: Mapping[str, int]) -> str:
    """The most frequent reasons, with their counts."""
    first = sorted(failures.items(), key=lambda one: -one[1])[:SHOWN]
    more = ", ..." if len(failures) > SHOWN else ""
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
