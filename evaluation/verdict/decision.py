"""Promote, hold, or not enough data: the gate's rule, and its reasons in words.

A promotion takes superiority in the primary metric and non-inferiority on every pack. Each is tested on its
own at the full level: a test of an intersection rejects only if all its parts do, so looking at several needs
no correction (Berger 1982, Technometrics 24, 295-300; Schultzberg, Ankargren and Frånberg 2024, arXiv
2402.11609).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from evaluation.packs.packs import PackResult
from evaluation.statistics.contrasts import Contrast
from evaluation.statistics.formats import counted, percent, points
from evaluation.statistics.intervals import Interval, Share
from evaluation.verdict.declining_limit import declining_finding
from evaluation.verdict.gate import Gate
from evaluation.verdict.limits import Finding, Limit
from evaluation.verdict.pack_limits import pack_findings

DONE_WITH_FAILED_LINES = 5


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


@dataclass(frozen=True)
class Sample:
    """How many rows decided, how many different questions they ask, and in how many clusters they are.

    `clusters` is None if all rows are independent; a cluster holds all rows of its questions.
    """

    rows: int
    questions: int
    clusters: int | None

    @property
    def independent(self) -> int:
        return self.rows if self.clusters is None else self.clusters

    @property
    def units(self) -> str:
        """What `independent` counts."""
        if self.clusters is None:
            return "rows"
        return "different questions" if self.clusters == self.questions else "clusters of rows"

    @property
    def in_words(self) -> str:
        """`40 rows, 4 different questions in 3 clusters`."""
        clusters = (
            "" if self.clusters in {None, self.questions} else f" in {counted(self.clusters or 0, 'cluster')}"
        )
        return f"{counted(self.rows, 'row')}, {counted(self.questions, 'different question')}{clusters}"


NO_JUDGE = Verdict(
    Decision.NOT_ENOUGH_DATA, ["The gate decides by a judge's preferences, but there is no judge."]
)
NEXT = "Next: "
BETTER_DATA = (
    f"{NEXT}keep the base model, read the rows that tuned lost, improve the training data, and compare again."
)


@dataclass(frozen=True)
class Broken:
    """A broken limit, and what to do about it."""

    reason: str
    next: str


def decide(
    primary: Verdict,
    gate: Gate,
    *,
    expected: int,
    failed: int,
    declined: Share | None,
    identical: bool,
    packs: Mapping[str, PackResult],
    in_training: int = 0,
) -> Verdict:
    """Hold if a limit of the gate is broken, else what the primary metric and the packs lead to.

    `expected` and `failed` count lines. `declined` is the share of the unanswerable questions that tuned
    declines, None if there are none. `identical`: both models gave the same answer to every row, and
    there are enough rows. `in_training` rows of the test file stand in the training file.
    """
    findings = [declining_finding(declined, gate)] if declined else []
    findings += pack_findings(packs, gate)
    broken = _broken_limits(gate, expected, failed, identical=identical)
    broken += [_trained_on(in_training, expected)] if in_training else []
    broken += [Broken(one.sentence, one.repair) for one in findings if one.limit is Limit.BROKEN]
    if broken:
        others = [reason for reason in primary.reasons if not reason.startswith(NEXT)]
        others += [one.sentence for one in findings if one.limit is not Limit.BROKEN]
        reasons = [*(one.reason for one in broken), *others, f"{NEXT}{broken[0].next}"]
        return Verdict(Decision.HOLD, reasons, primary.rows_needed)
    told = [f"{failed} of {expected} lines failed."] if failed else []
    if primary.verdict is Decision.HOLD:
        return Verdict(
            Decision.HOLD,
            [*primary.reasons[:-1], *told, *(one.sentence for one in findings), primary.reasons[-1]],
        )
    return _with_limits(primary, findings, told, gate)


def _with_limits(primary: Verdict, findings: list[Finding], told: list[str], gate: Gate) -> Verdict:
    """Not enough data where the primary metric would promote, but a limit is open and nobody accepts that."""
    unsettled = [one for one in findings if one.limit is not Limit.KEPT]
    settled = [one.sentence for one in findings if one.limit is Limit.KEPT]
    reasons = [*primary.reasons, *told, *settled]
    if not unsettled:
        return Verdict(primary.verdict, reasons, primary.rows_needed)
    risks = [one.sentence for one in unsettled]
    if gate.accepted_risk and all(one.limit is Limit.OPEN for one in unsettled):
        accepted = f"{gate.accepted_risk.by} accepts this risk: {gate.accepted_risk.reason}"
        return Verdict(primary.verdict, [*reasons, *risks, accepted], primary.rows_needed)
    first, then = (risks, reasons) if primary.verdict is Decision.PROMOTE else (reasons, risks)
    return Verdict(Decision.NOT_ENOUGH_DATA, [*first, *then], primary.rows_needed)


def _broken_limits(gate: Gate, expected: int, failed: int, *, identical: bool) -> list[Broken]:
    broken = []
    if failed > gate.max_failed_share * expected:
        allowed = percent(gate.max_failed_share)
        why = f"{failed} of {expected} lines failed; the gate allows {allowed}."
        broken.append(Broken(why, "find out why these lines failed, and run the same command again."))
    if identical:
        why = "Both models gave the same answer to every row: is the base served as tuned?"
        broken.append(Broken(why, "check which model the tuned endpoint serves, with phi3flow verify."))
    return broken


def _trained_on(rows: int, expected: int) -> Broken:
    """Whoever learned an answer by heart is not shown to be better by giving it."""
    why = f"{rows} of {counted(expected, 'test row')} ask what a row of the training file asks."
    return Broken(
        why,
        "prepare the chats again, which takes such rows out of the training file; train and compare again.",
    )


def exit_code(decision: Decision, failed: int) -> int:
    """The process's exit code: 5 for a promotion with failed lines, so that a script stops there."""
    return DONE_WITH_FAILED_LINES if decision is Decision.PROMOTE and failed else _EXIT_CODES[decision]


def decide_metric(
    contrast: Contrast, sample: Sample, rows_needed: int | None, gate: Gate, with_failures: Interval | None
) -> Verdict:
    """Hold if the upper end of the primary metric's CI <= margin; promote if its lower end > margin.

    Promotion also needs `gate.min_rows` independent rows, and the lower end of `with_failures`, the CI with
    every failed line counted against tuned, above the margin; None if no line failed.
    """
    if contrast.difference_ci is None:
        why = "Both models answered no question with a known answer."
        return Verdict(Decision.NOT_ENOUGH_DATA, [why], rows_needed)
    low, high = contrast.difference_ci
    seen = (
        f"Paired difference, tuned minus base, in {gate.primary.replace('_', ' ')}: "
        f"{points(contrast.difference)} points (95 % CI {points(low)} to {points(high)}, {sample.in_words})"
    )
    margin = f"the margin of {points(gate.margin)}"
    decision = Decision.NOT_ENOUGH_DATA
    if high <= gate.margin:
        decision, why = Decision.HOLD, f"the CI does not reach above {margin}"
    elif low <= gate.margin:
        why = f"the CI contains {margin}"
    elif sample.independent < gate.min_rows:
        why = f"the CI lies above {margin}, but the gate needs at least {gate.min_rows} {sample.units}"
    elif with_failures and with_failures.low <= gate.margin:
        ends = f"{points(with_failures.low)} to {points(with_failures.high)}"
        why = f"the CI lies above {margin}, but not with the failed lines counted against tuned ({ends})"
    else:
        decision, why = Decision.PROMOTE, f"the whole CI lies above {margin}"
    reasons = [f"{seen}; {why}."]
    if decision is Decision.NOT_ENOUGH_DATA:
        reasons.append(what_would_settle(rows_needed, sample.independent, gate, sample.units))
    if decision is Decision.HOLD:
        reasons.append(BETTER_DATA)
    return Verdict(decision, reasons, rows_needed)


def what_would_settle(needed: int | None, independent: int, gate: Gate, units: str = "rows") -> str:
    """How many rows the data would need. `needed` is None where the result does not exceed the margin."""
    if needed is not None:
        return f"About {needed} rows like these would settle it (80 % power)."
    if independent < gate.min_rows:
        return f"The gate needs at least {gate.min_rows} {units}."
    return "The result does not exceed the margin, so more rows like these would not promote the tuned model."
