"""One answer: which tokens belong to it, what text they make, and when it ends. The same for every engine."""

from collections.abc import Callable, Sequence
from functools import cached_property
from random import Random

from deploy.scoring.engine import Generation, SchemaRefused
from deploy.scoring.guide import Guide

INCOMPLETE = "\ufffd"  # what a tokenizer writes for bytes that are no whole character (yet)


class Answer:
    """Turns an engine's tokens into the text of a generation."""

    def __init__(
        self,
        generation: Generation,
        decode: Callable[[Sequence[int]], str],
        stop_ids: frozenset[int],
        guide: Guide | None = None,
    ) -> None:
        self.generation, self.request, self.guide = generation, generation.request, guide
        self._text = AnswerText(decode, self.request.stop)
        self._stop_ids = stop_ids
        self._tokens = 0

    @cached_property
    def random(self) -> Random:
        """Each answer has its own numbers, so a seed gives the same answer in any batch."""
        return Random(self.request.seed)

    def accept(self, token: int) -> bool:
        """Take the next token; False when the answer is over."""
        generation = self.generation
        if generation.over:  # cancelled
            return False
        if self.guide and (error := self.guide.accept(token)):
            generation.fail(SchemaRefused(f"the schema is too complex: {error}"))
            return False
        self._tokens += 1
        ended = token in self._stop_ids
        full = self._tokens == self.request.max_tokens
        text = "" if ended else self._text_of(token)
        if ended or full:
            text += self._text.rest()
        generation.write(text, self._tokens)
        if ended or self._text.stopped:
            generation.finish("stop")
        elif full:
            generation.finish("length")
        return not generation.over

    def _text_of(self, token: int) -> str:
        """Decoding costs most here, so an answer that is read as a whole is decoded once, at its end."""
        if self.generation.streamed or self.request.stop:
            return self._text.add(token)
        self._text.keep(token)
        return ""


class AnswerText:
    """Token ids to text, one token at a time, cut before the first stop string.

    How a tokenizer decodes one token depends on its neighbours (a leading space, the bytes of one character).
    So each step decodes the last emitted tokens together with the new ones and emits the difference. Bytes
    that end within a character are held back, and so is text that may be the beginning of a stop string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        self._emitted, self._before = 0, ""  # `_before` is the text of the ids before index `_emitted`
        self._held = ""

    def keep(self, token: int) -> None:
        """Take a token without decoding it; the next `add` or `rest` returns its text too."""
        self._ids.append(token)

    def add(self, token: int) -> str:
        """Take a token and return the text that no later token can change."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if len(text) <= len(self._before) or text.endswith(INCOMPLETE):
            return ""
        return self._before_stop(self._advance(text))

    def rest(self) -> str:
        """The text held back so far, for an answer that ends here; half a character is dropped."""
        if self.stopped:
            return ""
        unread = len(self._ids) > self._emitted
        tail = self._advance(self._decode(self._ids)).rstrip(INCOMPLETE) if unread else ""
        text = self._before_stop(tail)
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _advance(self, text: str) -> str:
        new = text[len(self._before) :]
        self._ids = self._ids[self._emitted :]
        self._emitted, self._before = len(self._ids), self._decode(self._ids)
        return new

    def _before_stop(self, text: str) -> str:
        if not self._stop:
            return text
        text = self._held + text
        cuts = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        self.stopped = bool(cuts)
        end = min(cuts) if cuts else len(text) - max(_overlap(text, stop) for stop in self._stop)
        self._held = "" if cuts else text[end:]
        return text[:end]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
