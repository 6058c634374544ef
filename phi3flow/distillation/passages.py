"""Passages: parts of a document's text that answer questions, and how a quote is found in one.

A passage is a slice of the text, of whole paragraphs where they are short enough, else of whole sentences. No
two passages overlap, and one that nearly repeats an earlier one is left out: so a passage that is held out
stands in no other row.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.distillation.documents import Document

SHORTEST, LONGEST = 400, 1500  # characters; paragraphs are joined up to the first, cut at the second
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]\u201d\u2019]*\s+|(?<=[\u3002\uff01\uff1f])")
_SAME = str.maketrans("\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2013\u2014\u2212", '\'\'\'"""""---')


class Passage(NamedTuple):
    """`number` counts the document's passages from 1; `document` is its name."""

    document: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}, passage {self.number}"


class Passages(NamedTuple):
    """In the order of the documents, without the `repeated` ones."""

    kept: list[Passage]
    repeated: list[Passage]


def passages_of(documents: Sequence[Document]) -> Passages:
    """All passages. Of those that nearly repeat each other (word 5-grams, Jaccard 0.9) the first is kept."""
    found = [
        Passage(document.name, number, text)
        for document in documents
        for number, text in enumerate(_pieces(document.text), 1)
    ]
    groups = text_groups((question_text([_as_turn(one.text)]) for one in found), near=True)
    first: dict[int, int] = {}
    for i, group in enumerate(groups.tolist()):
        first.setdefault(group, i)
    kept = {*first.values()}
    return Passages([found[i] for i in sorted(kept)], [one for i, one in enumerate(found) if i not in kept])


def _as_turn(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _pieces(text: str) -> Iterator[str]:
    """Slices of the text, none shorter than SHORTEST if the text is not."""
    ends: list[int] = []
    start = 0
    for end in [*_borders(text), len(text)]:
        if end - start >= SHORTEST and len(text) - end >= SHORTEST:
            ends.append(end)
            start = end
    for begin, end in zip([0, *ends], [*ends, len(text)], strict=True):
        yield text[begin:end].strip()


def _borders(text: str) -> Iterator[int]:
    """Where a piece may end: after a paragraph, and within a long one after a sentence or a word."""
    start = 0
    for end in [*(found.end() for found in _PARAGRAPH.finditer(text)), len(text)]:
        if end - start > LONGEST:
            yield from _cuts(text, start, end)
        yield end
        start = end


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    while end - start > LONGEST:
        window = text[start : start + LONGEST]
        sentences = [found.end() for found in _SENTENCE.finditer(window) if found.end() >= SHORTEST]
        space = window.rfind(" ", SHORTEST)
        start += sentences[-1] if sentences else space + 1 if space > 0 else LONGEST
        yield start


def holds(passage: str, quote: str) -> bool:
    """Whether the quote stands in the passage; case, white space and typographic marks do not matter."""
    wanted = _folded(quote).strip("\"'. ")
    return bool(wanted) and wanted in _folded(passage)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SAME).casefold().split())
