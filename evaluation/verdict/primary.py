"""Which metric fits the references: are they closed answers, or free text that many wordings make right?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from evaluation.answer_metrics import declines
from evaluation.scored_rows import ScoredRow
from evaluation.statistics.scores import STRUCTURED
from evaluation.verdict.gate import AUTO, WIN_RATE, Gate

SHORT = 8  # words: a name, a number, a label, a sentence of one form
FEW_WORDINGS = 0.2  # share of the references that are different: labels, however long
LOOKED_AT = 2000


@dataclass(frozen=True)
class Suggestion:
    """A primary metric, what about the references suggests it, and which metrics fit them, too."""

    primary: Literal["exact_match", "token_f1"]
    why: str
    also: tuple[str, ...] = (WIN_RATE,)


@dataclass(frozen=True)
class Fit:
    """Whether the gate's primary metric is the suggested one, or a judge; and why, as a sentence."""

    fits: bool
    why: str


def suggest_primary(references: Iterable[str]) -> Suggestion:
    """Looks at the references that answer something. Exact match where there is none."""
    known = [text for text in references if not declines(text)]
    words = median(len(text.split()) for text in known) if known else 0
    if known and len(set(known)) <= FEW_WORDINGS * len(known):
        return Suggestion("exact_match", f"there are only {len(set(known))} different references")
    if words <= SHORT:
        why = f"the references are short: the median has {words:.0f} words"
        return Suggestion("exact_match", why, also=(WIN_RATE, "token_f1"))
    return Suggestion("token_f1", f"the references are free text: the median has {words:.0f} words")


def settled(gate: Gate, rows: Sequence[ScoredRow]) -> Gate:
    """The gate, with the metric that the references suggest if it is left open. No answer is looked at."""
    return replace(gate, primary=_suggested(rows).primary) if gate.primary == AUTO else gate


def _suggested(rows: Sequence[ScoredRow]) -> Suggestion:
    """From up to `LOOKED_AT` rows, at equal distances."""
    return suggest_primary(row.reference for row in rows[:: -(-len(rows) // LOOKED_AT) or 1])


def primary_fit(rows: Sequence[ScoredRow], gate: Gate) -> Fit:
    if gate.own_primary:
        whose = "The metric" if gate.primary in STRUCTURED else "Your own metric"
        return Fit(True, f"{whose} {gate.primary} decides.")
    found = _suggested(rows)
    named = gate.primary.replace("_", " ")
    if gate.primary in {found.primary, *found.also}:
        return Fit(True, f"{named.capitalize()} decides; {found.why}.")
    then = "`phi3flow verdict RUN --gate FILE` decides again over the same answers."
    if found.primary == "token_f1":
        more = "exact match counts only answers that are equal to the letter"
        other = "`token_f1` counts shared words, `win_rate` a judge's preferences"
        return Fit(
            False, f"{found.why.capitalize()}, and {more}. {other}: set `primary` in a gate file; {then}"
        )
    return Fit(False, f"{found.why.capitalize()}, so `exact_match` would fit better than {named}: {then}")
