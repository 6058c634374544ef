"""Token ids to text, a token at a time."""

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"  # what a tokenizer writes for bytes that are no whole character (yet)


class AnswerText:
    """The growing text of one answer, cut before the first stop string.

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

    def keep(self, token: int) -> str:
        """No text yet: `add` or `rest` will tell."""
        self._ids.append(token)
        return ""

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if len(text) <= len(self._before) or text.endswith(INCOMPLETE):
            return ""
        return self._before_stop(self._advance(text))

    def rest(self) -> str:
        """What was held back, for an answer that ends here; half a character is dropped."""
        if self.stopped:
            return ""
        tail = (
            self._advance(self._decode(self._ids)).rstrip(INCOMPLETE)
            if len(self._ids) > self._emitted
            else ""
        )
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
        sure = min(cuts) if cuts else len(text) - max(_overlap(text, stop) for stop in self._stop)
        self._held = "" if cuts else text[sure:]
        return text[:sure]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
