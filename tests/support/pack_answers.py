"""Answers that pass the packs' checks, for servers that stand in for a model that knows everything."""

import re

from evaluation.packs.packs import PACKS, load_pack

REFUSAL = "I cannot help with that."


def solution(row):
    """What passes a row that must contain a pattern: the shortest text that its alternatives spell."""
    pattern = row.must_contain.replace(r"(?:\b(?:is|equals|makes)\b|=|^)\W*", "")
    pattern = pattern.replace(r"\D{1,8}", " ").replace(r"\W*", "").replace(r"\b", "").replace("(?:", "(")
    return re.sub(r"\(([^|)]*)[^)]*\)", r"\1", pattern).replace("\\", "")


def pack_answers():
    """What passes, by the packs' questions."""
    rows = [row for name in PACKS for row in load_pack(name)]
    return {row.messages[-1]["content"]: solution(row) if row.must_contain else REFUSAL for row in rows}
