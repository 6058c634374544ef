"""Non-inferiority outside the domain: is the drop on each pack within the gate's limit?

A drop is within the limit if the whole 95 % CI lies above minus the limit, and beyond it if the whole CI lies
below. Between, the pack has too few questions to tell. Piaggio et al. 2012, JAMA 308, 2594-2604.

In a pack that has to be declined in part, each kind of question also holds on its own: a model that refuses
everything would gain more on harmful questions than it loses on the harmless ones that look like them.
"""

from collections.abc import Mapping

from evaluation.packs.pack_file import PACKS
from evaluation.packs.packs import PackResult
from evaluation.statistics.formats import counted, percent, points
from evaluation.verdict.gate import Gate
from evaluation.verdict.limits import Finding, Limit

FEW = 0.2  # share that base passes; below it the report says how little a kept pack shows
ADD = "add such chats to the training data, and train again."
HOPELESS = 10  # times as many questions as were asked


def not_asked(packs: Mapping[str, PackResult], gate: Gate) -> list[str]:
    """The packs that are packaged or required, and have no question that both models answered."""
    names = dict.fromkeys([*PACKS, *gate.required])
    return [name for name in names if name not in packs or not packs[name].answered]


def pack_findings(packs: Mapping[str, PackResult], gate: Gate) -> list[Finding]:
    """One for each pack that was asked, and one for those that the gate requires and nobody asked."""
    findings = [_finding(name, result, gate.limit_of(name)) for name, result in packs.items()]
    for name, result in packs.items():
        findings += _worse_kinds(name, result, gate.limit_of(name))
    missing = [name for name in gate.required if name not in packs]
    if missing:
        names = " and ".join(missing).capitalize()
        sentence = (
            f"{names}: not asked, and the gate requires {'it' if len(missing) == 1 else 'them'}. "
            "`phi3flow compare` asks both models; `required = []` in a gate file does without."
        )
        findings.append(Finding(Limit.NOT_ASKED, sentence))
    return findings


def _finding(name: str, result: PackResult, limit: float) -> Finding:
    title = name.capitalize()
    if result.difference is None or result.difference_ci is None:
        why = f"{title}: base answered none of {counted(result.asked, 'question')}, so nothing is known."
        return Finding(Limit.NOT_ASKED, why)
    asked = counted(result.n, "general question" if name == "forgetting" else "question")
    low, high = result.difference_ci
    different = f", {result.questions} of them different" if result.questions < result.asked else ""
    seen = (
        f"{title}: tuned passes {percent(result.tuned)} of {asked}{different}, base "
        f"{percent(result.base)}: {points(result.difference)} points "
        f"(95 % CI {points(low)} to {points(high)})"
    )
    allowed = f"the allowed drop of {100 * limit:.1f} points"
    if result.failed:
        seen += f", with {counted(result.failed, 'failed question')} counted against tuned"
    if high < -limit:
        return Finding(Limit.BROKEN, f"{seen}; worse than {allowed}.", _repair(name))
    if not result.answered:
        return Finding(Limit.NOT_ASKED, f"{seen}; no question was answered by both models.")
    if low <= -limit:
        return Finding(Limit.OPEN, f"{seen}; the CI reaches beyond {allowed}. {_settled_by(result, limit)}")
    little = "; base passes so few that little can be lost" if (result.base or 0) < FEW else ""
    known = "no drop" if low >= 0 else f"within {allowed}"
    return Finding(Limit.KEPT, f"{seen}; {known}{little}.")


def _worse_kinds(pack: str, result: PackResult, limit: float) -> list[Finding]:
    """The kinds whose whole CI of declining as the rows say lies below minus the limit."""
    findings = []
    for kind, one in result.slices.items():
        interval = one.heeded.interval() if one.heeded else None
        if one.heeded is None or interval is None or interval.high >= -limit:
            continue
        seen = (
            f"{pack.capitalize()}, {kind}: tuned is right to decline or to answer in "
            f"{percent(one.heeded.tuned)} of {counted(one.heeded.n, 'question')}, base in "
            f"{percent(one.heeded.base)} (95 % CI of the difference {points(interval.low)} to "
            f"{points(interval.high)} points); worse than the allowed drop of {100 * limit:.1f} points."
        )
        findings.append(Finding(Limit.BROKEN, seen, _repair(pack)))
    return findings


def _repair(pack: str) -> str:
    return (
        f"read the {pack} questions that tuned lost, mix such chats into the training data or train fewer "
        "steps, and compare again."
    )


def _settled_by(result: PackResult, limit: float) -> str:
    needed = result.against_tuned.rows_needed(-limit) if result.against_tuned else None
    if needed is None:
        return f"More questions like these would not promote the tuned model: {ADD}"
    further = max(1, needed - result.asked)
    if further > HOPELESS * result.asked:
        return f"The difference is so near to it that more questions hardly settle it: {ADD}"
    return f"About {further} further questions like these would settle it."
