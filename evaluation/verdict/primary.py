"""Which metric fits the references: are they closed answers, or free text that many wordings make right?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from evaluation.answer_metrics import declines
from evaluation.scored_rows import ScoredRow
from evaluation.verdict.gate import WIN_RATE, Gate

SHORT = 8  # words: a name, a number, a label, a sentence of one form
FEW_WORDINGS = 0.2  # share of the references that are different: labels, however long
LOOKED_AT = 2000


@dataclass(frozen=True)
class Suggestion:
    """A primary metric, and what about the references suggests it."""

    primary: str
    why: str


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
        return Suggestion("exact_match", f"the references are short: the median has {words:.0f} words")
    return Suggestion("token_f1", f"the references are free text: the median has {words:.0f} words")


def primary_fit(rows: Sequence[ScoredRow], gate: Gate) -> Fit:
    """Looks at up to `LOOKED_AT` rows, at equal distances."""
    some = rows[:: -(-len(rows) // LOOKED_AT) or 1]
    found = suggest_primary(row.reference for row in some)
    named = gate.primary.replace("_", " ")
    if gate.primary in {found.primary, WIN_RATE}:
        return Fit(True, f"{named.capitalize()} decides; {found.why}.")
    then = "`phi3flow verdict RUN --gate FILE` decides again over the same answers."
    if found.primary == "token_f1":
        more = "exact match counts only answers that are equal to the letter"
        other = "`token_f1` counts shared words, `win_rate` a judge's preferences"
        return Fit(
            False, f"{found.why.capitalize()}, and {more}. {other}: set `primary` in a gate file; {then}"
        )
    return Fit(False, f"{found.why.capitalize()}, so `exact_match` would fit better than {named}: {then}")
