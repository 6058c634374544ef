"""How many steps a regular expression takes: a backtracking matcher over Python's parse tree that counts.

`re` cannot count. The order of the attempts is that of `re`, without its shortcuts, so the count is an upper
bound.
"""

import re
from collections.abc import Iterator
from re import _constants as op
from re import _parser
from typing import Any


class StepCounter:
    """Searches like `pattern.search`, and counts every attempt to match one item of the pattern."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._tree = list(_parser.parse(pattern.pattern, pattern.flags & re.VERBOSE))
        self.steps = 0

    def search(self, text: str) -> bool:
        return any(True for start in range(len(text) + 1) for _ in self._ends(self._tree, text, start))

    def _ends(self, items: Any, text: str, at: int, first: int = 0) -> Iterator[int]:
        """Where `items[first:]` can end, in the order in which backtracking finds it."""
        if first == len(items):
            yield at
            return
        for end in self._one(*items[first], text, at):
            yield from self._ends(items, text, end, first + 1)

    def _one(self, kind: Any, value: Any, text: str, at: int) -> Iterator[int]:
        self.steps += 1
        if kind is op.BRANCH:
            for way in value[1]:
                yield from self._ends(way, text, at)
        elif kind is op.SUBPATTERN:
            yield from self._ends(value[3], text, at)
        elif kind is op.MAX_REPEAT:
            yield from self._repeat(*value, text, at)
        elif kind is op.ASSERT or kind is op.ASSERT_NOT:
            if self._looks(value, text, at) is (kind is op.ASSERT):
                yield at
        elif kind is op.AT:
            if re.compile({op.AT_BEGINNING: "^", op.AT_END: "$", op.AT_BOUNDARY: r"\b"}[value]).match(
                text, at
            ):
                yield at
        elif at < len(text) and _fits(kind, value, text[at]):
            yield at + 1

    def _repeat(self, least: int, most: int, items: Any, text: str, at: int) -> Iterator[int]:
        if most > 0:
            for end in self._ends(items, text, at):
                if end > at:
                    yield from self._repeat(max(least - 1, 0), most - 1, items, text, end)
        if least == 0:
            yield at

    def _looks(self, value: tuple[int, Any], text: str, at: int) -> bool:
        direction, items = value
        start = at if direction > 0 else at - items.getwidth()[0]
        return start >= 0 and any(direction > 0 or end == at for end in self._ends(items, text, start))


def _fits(kind: Any, value: Any, char: str) -> bool:
    if kind is op.LITERAL:
        return ord(char) == value
    if kind is op.NOT_LITERAL:
        return ord(char) != value
    if kind is op.ANY:
        return char != "\n"
    if kind is op.RANGE:
        return value[0] <= ord(char) <= value[1]
    if kind is op.CATEGORY:
        name = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[str(value).rsplit("_", 1)[1]]
        return bool(re.match(name.upper() if "NOT" in str(value) else name, char))
    negated = value[0][0] is op.NEGATE  # op.IN
    return negated is not any(_fits(*one, char) for one in value[negated:])
