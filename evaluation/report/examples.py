"""The rows with the largest losses and gains, their answers with the differing words marked."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from markupsafe import Markup, escape

from evaluation.answer_metrics import declines, score_answer
from evaluation.scored_rows import ScoredRow

SHOWN_WORDS = 200  # matching is quadratic in the number of words


class SideBySide(NamedTuple):
    """Both texts as HTML: words of the first only in `del`, words of the second only in `ins`."""

    before: Markup
    after: Markup


def largest_changes(rows: Sequence[ScoredRow], primary: str) -> tuple[list[int], list[int]]:
    """Positions of the rows that lost and of those that gained, the largest change first.

    Ranks by the primary metric, then by token F1.
    """
    changes = {i: change for i, row in enumerate(rows) if (change := _change(row, primary))[0]}
    losses = sorted((i for i in changes if changes[i][0] < 0), key=changes.__getitem__)
    gains = sorted((i for i in changes if changes[i][0] > 0), key=changes.__getitem__, reverse=True)
    return losses, gains


def _change(row: ScoredRow, primary: str) -> tuple[float, float]:
    """Tuned minus base in the primary metric and in token F1; 0 for rows that do not count."""
    if row.base is None or row.tuned is None or declines(row.reference):
        return 0.0, 0.0
    base, tuned = (score_answer(answer.text, row.reference) for answer in (row.base, row.tuned))
    return tuned[primary] - base[primary], tuned["token_f1"] - base["token_f1"]


def word_diff(before: str, after: str) -> SideBySide:
    """Mark the words in which two texts differ. Texts are escaped, and cut after `SHOWN_WORDS` words."""
    old, new = _words(before), _words(after)
    left, right = [], []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            left.append(_plain(old[i1:i2]))
            right.append(_plain(new[j1:j2]))
        else:
            left.append(_marked("del", old[i1:i2]))
            right.append(_marked("ins", new[j1:j2]))
    return SideBySide(Markup("").join(left), Markup("").join(right))


def _words(text: str) -> list[str]:
    """Words with the whitespace that follows them, at most `SHOWN_WORDS`."""
    words = re.findall(r"\S+\s*", text)
    return words if len(words) <= SHOWN_WORDS else [*words[:SHOWN_WORDS], "…"]


def _plain(words: Sequence[str]) -> Markup:
    return escape("".join(words))


def _marked(tag: str, words: Sequence[str]) -> Markup:
    return Markup("<{0}>{1}</{0}>").format(tag, "".join(words)) if words else Markup("")
