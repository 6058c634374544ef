"""Holds an answer to a grammar: which tokens may come next, by llguidance."""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher

KEPT = 32  # compiled grammars


class Guides:
    """Makes guides for a tokenizer. It takes a second to make.

    `tokenizer` is its text (tokenizer.json with all tokens), `vocabulary` the number of logits.
    """

    def __init__(self, tokenizer: str, vocabulary: int, stop_ids: Iterable[int]) -> None:
        from llguidance import LLTokenizer

        self._vocabulary = vocabulary
        self._tokenizer = LLTokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(stop_ids))
        self._compiled = lru_cache(KEPT)(self._compile)

    def problem_of(self, grammar: str) -> str:
        """Why llguidance cannot enforce the grammar, or nothing."""
        return self._compiled(grammar).get_error()

    def guide(self, grammar: str) -> "Guide":
        return Guide(self._compiled(grammar).deep_copy(), self._vocabulary)

    def _compile(self, grammar: str) -> "LLMatcher":
        from llguidance import LLMatcher

        return LLMatcher(self._tokenizer, grammar)


class Guide:
    """One answer's place in its grammar."""

    def __init__(self, matcher: "LLMatcher", vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> "np.ndarray":
        """Whether each token may be next, of shape (vocabulary,); a stop token may at the grammar's end."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(bool)

    def accept(self, token: int) -> str:
        """Take the token; why the answer cannot go on, or nothing."""
        return "" if self._matcher.consume_token(token) else self._matcher.get_error()
