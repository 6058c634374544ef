"""Reads an answer as it grows, and tells its words from its calls."""

import json
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from phi3flow.chats.call_form import CallForm


class Words(NamedTuple):
    text: str


class Began(NamedTuple):
    """A call; its arguments follow."""

    name: str


class Arguments(NamedTuple):
    """A piece of the last call's arguments: JSON."""

    text: str


Part = Words | Began | Arguments


class CallReader:
    """For answers that a grammar has held to `form`, or that were cut.

    White space between words and a call belongs to neither.
    """

    def __init__(self, form: CallForm) -> None:
        self._form = form
        self._held = ""
        self._state: Literal["words", "name", "arguments", "after", "over"] = "words"
        self._at_start = True
        self._called = False
        self._json = _Json()

    def add(self, text: str) -> Iterator[Part]:
        """What is certain by now."""
        self._held += text
        steps: dict[str, Callable[[], Part | None]] = {
            "words": self._words,
            "name": self._name,
            "arguments": self._arguments,
            "after": self._after,
        }
        while step := steps.get(self._state):
            before = (self._state, self._held)
            if part := step():
                yield part
            elif before == (self._state, self._held):
                break

    def rest(self) -> Iterator[Part]:
        """The words that were held back, at the answer's end; a call that has only begun is none.

        JSON that only began like a call is the answer itself.
        """
        whole = self._form.head + self._held
        if self._state == "name" and not self._called and _is_json(whole):
            yield Words(whole)
        if self._state == "words" and self._held and not self._held.lstrip().startswith(self._form.opening):
            yield Words(self._held)
        self._state = "over"

    def _words(self) -> Part | None:
        head = self._form.head
        anywhere = head != self._form.opening  # else it is JSON like other JSON, but for its place
        at = self._held.find(head) if anywhere or (self._at_start and self._held.startswith(head)) else -1
        if at >= 0:
            said, self._held = self._held[:at].rstrip(), self._held[at + len(head) :]
            self._state = "name"
            return Words(said) if said else None
        kept = _overlap(self._held, head) if anywhere or self._at_start else 0
        if not anywhere and kept < len(self._held):
            kept = 0
        said = self._held[: len(self._held) - kept]
        words = said.rstrip() if anywhere else said
        if not words:
            return None
        self._at_start, self._held = False, self._held[len(words) :]
        return Words(words)

    def _name(self) -> Part | None:
        name, middle, rest = self._held.partition(self._form.middle)
        if not middle:
            return None
        self._held, self._state, self._json, self._called = rest, "arguments", _Json(), True
        return Began(name)

    def _arguments(self) -> Part | None:
        end = self._json.read(self._held)
        part, self._held = self._held[:end], self._held[end:]
        if self._json.over:
            self._state = "after"
        return Arguments(part) if part else None

    def _after(self) -> Part | None:
        between = self._form.between
        if self._held.startswith(between):
            self._held, self._state = self._held[len(between) :], "name"
        elif not between.startswith(self._held):
            self._held, self._state = "", "over"
        return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _Json:
    """Where the first JSON object of a text ends, piece by piece."""

    def __init__(self) -> None:
        self.over = False
        self._depth, self._in_string, self._escaped = 0, False, False

    def read(self, text: str) -> int:
        """How many characters belong to the object."""
        for at, sign in enumerate(text):
            if self._in_string:
                self._in_string = self._escaped or sign != '"'
                self._escaped = sign == "\\" and not self._escaped
            elif sign == '"':
                self._in_string = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                if not self._depth:
                    self.over = True
                    return at + 1
        return len(text)


def _overlap(text: str, start: str) -> int:
    """The length of the longest end of `text` that begins `start`."""
    return next((n for n in range(min(len(text), len(start)), 0, -1) if text.endswith(start[:n])), 0)
