"""One answer in the making: which tokens belong to it, and when it ends."""

from collections.abc import Callable, Sequence

from deploy.scoring.engine import Generation
from deploy.scoring.engines.answer_text import AnswerText


class Answer:
    """Turns an engine's tokens into the text of a generation; the same rules for every engine."""

    def __init__(
        self, generation: Generation, decode: Callable[[Sequence[int]], str], stop_ids: frozenset[int]
    ) -> None:
        self.generation = generation
        self._text = AnswerText(decode, generation.request.stop)
        self._stop_ids = stop_ids
        self._tokens = 0

    def accept(self, token: int) -> bool:
        """Take the next token; False when the answer is over."""
        generation = self.generation
        if generation.over:  # cancelled
            return False
        self._tokens += 1
        ended = token in self._stop_ids
        text = ""
        if not ended:
            # Decoding is the dearest of it, and whoever waits for the whole answer needs it once.
            text = (
                self._text.add(token)
                if generation.streamed or generation.request.stop
                else self._text.keep(token)
            )
        full = self._tokens == generation.request.max_tokens
        if ended or full:
            text += self._text.rest()
        generation.write(text, self._tokens)
        if ended or self._text.stopped:
            generation.finish("stop")
        elif full:
            generation.finish("length")
        return not generation.over
