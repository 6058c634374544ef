"""The rows in groups of how they fared, and two answers with the differing words marked."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from markupsafe import Markup, escape

from evaluation.answer_metrics import score_answer
from evaluation.scored_rows import ScoredRow
from evaluation.statistics.scores import Column

SHOWN_WORDS = 200  # matching is quadratic in the number of words
SHOWN_ROWS = 40  # of each group
PAGE = 5


class SideBySide(NamedTuple):
    """Both texts as HTML: words of the first only in `del`, words of the second only in `ins`."""

    before: Markup
    after: Markup


class Group(NamedTuple):
    """Rows that fared alike, in pages of positions; `n` counts all of them."""

    name: str
    explained: str
    n: int
    pages: list[list[int]]


def groups_of(rows: Sequence[ScoredRow], metric: str, measured: Column | None = None) -> list[Group]:
    """Every row that counts is in one of four groups: tuned helped, tuned cost, both wrong, both right.

    The largest changes of `metric` (then of token F1) come first; of unchanged rows, some of the whole file.
    `measured` has the metric of all rows if it is none of `score_answer`.
    """
    changes = {i: change for i, row in enumerate(rows) if (change := _change(row, metric, measured))}
    cost = sorted((i for i in changes if changes[i].primary < 0), key=changes.__getitem__)
    helped = sorted((i for i in changes if changes[i].primary > 0), key=changes.__getitem__, reverse=True)
    same = [i for i in changes if not changes[i].primary]
    wrong = [i for i in same if changes[i].tuned < 1]
    right = [i for i in same if changes[i].tuned == 1]
    return [
        _group("Cost", "base is better", cost),
        _group("Helped", "tuned is better", helped),
        _group("Both wrong", "no better and no worse", _spread(wrong)),
        _group("Both right", "as the reference says", _spread(right)),
    ]


class _Change(NamedTuple):
    """Tuned minus base in the primary metric and in token F1, and what tuned scores."""

    primary: float
    token_f1: float
    tuned: float


def _change(row: ScoredRow, metric: str, measured: Column | None) -> _Change | None:
    """None for rows that do not count."""
    if row.base is None or row.tuned is None or row.declining:
        return None
    base, tuned = (score_answer(answer.text, row.reference) for answer in (row.base, row.tuned))
    if measured:
        base[metric], tuned[metric] = (float(side[row.line - 1]) for side in measured)
    return _Change(tuned[metric] - base[metric], tuned["token_f1"] - base["token_f1"], tuned[metric])


def _group(name: str, explained: str, rows: list[int]) -> Group:
    shown = rows[:SHOWN_ROWS]
    return Group(name, explained, len(rows), [shown[i : i + PAGE] for i in range(0, len(shown), PAGE)])


def _spread(rows: list[int]) -> list[int]:
    """The same rows, those at equal distances first."""
    chosen = rows[:: -(-len(rows) // SHOWN_ROWS) or 1]
    return [*chosen, *(set(rows) - set(chosen))]


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
