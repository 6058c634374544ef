"""Two answers side by side, the words that differ marked."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from markupsafe import Markup, escape

SHOWN_WORDS = 200  # matching is quadratic, and nobody reads further to see where two answers part


class SideBySide(NamedTuple):
    """Both texts as HTML: what only the first has in `del`, what only the second has in `ins`."""

    before: Markup
    after: Markup


def word_diff(before: str, after: str) -> SideBySide:
    """Mark the words in which two texts differ. Everything is escaped; long texts end in an ellipsis."""
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
