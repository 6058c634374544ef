"""The gate's rule for win rates: a judge's preferences, or people's votes."""

from collections.abc import Mapping

from evaluation.statistics.formats import counted, percent
from evaluation.statistics.intervals import Interval
from evaluation.statistics.win_rate import WinRate, rows_to_clear
from evaluation.verdict.decision import BETTER_DATA, Decision, Verdict, what_would_settle
from evaluation.verdict.gate import Gate

SHOWN_FAILURES = 3  # reasons of failed rows


def decide_preference(
    rate: WinRate, gate: Gate, failures: Mapping[str, int] | None = None, *, unanswered: int = 0
) -> Verdict:
    """Apply the gate's rule to win rates: their intervals against one half plus the margin.

    Promotion needs every win rate above it, so an answer gains nothing by being longer. Hold needs the one at
    equal length below it, so an answer loses nothing by being shorter. `failures` counts the rows without a
    preference, by reason, `unanswered` those that a model did not answer: a promotion must hold with all of
    them lost. Beyond `max_failed_share` of failures nothing is promoted.
    """
    bound = 0.5 + gate.margin
    needed = rows_to_clear(rate, bound, gate.min_rows)
    failed = sum((failures or {}).values())
    verdict = _by_intervals(rate, bound, gate, failed + unanswered)
    decision, reasons = verdict.verdict, [*verdict.reasons]
    if decision is Decision.NOT_ENOUGH_DATA and rate.n:
        reasons.append(what_would_settle(needed, rate.independent, gate, _units(rate)))
    rows = rate.n + failed
    told = f"{failed} of {rows} rows have no preference{_why(failures or {})}"
    if failed > gate.max_failed_share * rows:
        reasons.insert(0, f"{told}; the gate allows {percent(gate.max_failed_share)}.")
        decision = Decision.NOT_ENOUGH_DATA if decision is Decision.PROMOTE else decision
    elif failed:
        reasons.append(f"{told}.")
    if decision is Decision.HOLD:
        reasons.append(BETTER_DATA)
    return Verdict(decision, reasons, needed)


def _why(failures: Mapping[str, int]) -> str:
    """The most frequent reasons, with their counts."""
    first = sorted(failures.items(), key=lambda one: -one[1])[:SHOWN_FAILURES]
    more = ", ..." if len(failures) > SHOWN_FAILURES else ""
    return " (" + ", ".join(f"{count}: {why}" for why, count in first) + more + ")"


def _by_intervals(rate: WinRate, bound: float, gate: Gate, lost: int) -> Verdict:
    """`lost` rows have no preference."""
    overall, length = rate.win_rate_ci, rate.length
    if overall is None:
        return Verdict(Decision.NOT_ENOUGH_DATA, ["There are no preferences."])
    rows = counted(rate.n, "row") + ("" if rate.clusters is None else f", {rate.clusters} independent")
    seen = [_seen("Tuned wins", rate.win_rate, overall) + f", {rows}, ties count half."]
    if length.win_rate_ci is None:
        why = f"There is no win rate at equal length: {length.note}."
        return Verdict(Decision.NOT_ENOUGH_DATA, [*seen, why])
    seen.append(_seen("At equal length tuned would win", length.win_rate, length.win_rate_ci) + ".")
    lows = [overall.low, length.win_rate_ci.low]
    if length.balanced_ci:
        what = "Were tuned longer as often as shorter, it would win"
        seen.append(_seen(what, length.balanced, length.balanced_ci) + ".")
        lows.append(length.balanced_ci.low)
    decision, why = _against_bound(rate, min(lows), bound, gate, lost)
    return Verdict(decision, [*seen, why])


def _against_bound(rate: WinRate, lowest: float, bound: float, gate: Gate, lost: int) -> tuple[Decision, str]:
    """`lowest` is the lower end of all intervals."""
    against = f"{percent(bound)}, one half plus the margin"
    length = rate.length.win_rate_ci
    if length and length.high <= bound:
        return Decision.HOLD, f"At equal length the CI does not reach above {against}."
    if lowest <= bound:
        return Decision.NOT_ENOUGH_DATA, f"Not all CIs lie above {against}."
    if rate.independent < gate.min_rows:
        return Decision.NOT_ENOUGH_DATA, f"The gate needs at least {gate.min_rows} {_units(rate)}."
    if lowest * rate.n / (rate.n + lost) <= bound:
        why = f"Not all CIs lie above {against} with {counted(lost, 'row')} without a preference as lost."
        return Decision.NOT_ENOUGH_DATA, why
    return Decision.PROMOTE, f"All CIs lie above {against}."


def _units(rate: WinRate) -> str:
    return "rows" if rate.clusters is None else "independent rows"


def _seen(what: str, share: float | None, interval: Interval) -> str:
    return f"{what} {percent(share)} (95 % CI {percent(interval.low)} to {percent(interval.high)})"
