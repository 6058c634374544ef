"""Holds an answer to a JSON schema: which tokens may come next, by llguidance."""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher

KEPT = 32  # compiled schemas
WHITE_SPACE = " ?"  # between the parts of JSON: with more, a small model may never come to an end


class Guides:
    """Makes guides for a tokenizer. It takes a second to make.

    `tokenizer` is its text (tokenizer.json with all tokens), `vocabulary` the number of logits.
    """

    def __init__(self, tokenizer: str, vocabulary: int, stop_ids: Iterable[int]) -> None:
        from llguidance import LLTokenizer

        self._vocabulary = vocabulary
        self._tokenizer = LLTokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(stop_ids))
        self._compiled = lru_cache(KEPT)(self._compile)

    def problem_of(self, schema: str) -> str:
        """Why llguidance cannot enforce the schema, or nothing."""
        return self._compiled(schema).get_error()

    def guide(self, schema: str) -> "Guide":
        return Guide(self._compiled(schema).deep_copy(), self._vocabulary)

    def _compile(self, schema: str) -> "LLMatcher":
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITE_SPACE})
        return LLMatcher(self._tokenizer, grammar)


class Guide:
    """One answer's place in its schema."""

    def __init__(self, matcher: "LLMatcher", vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def allowed(self) -> "np.ndarray":
        """Whether each token may be next, of shape (vocabulary,); a stop token may at the schema's end."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(bool)

    def accept(self, token: int) -> str:
        """Take the token; why the answer cannot go on, or nothing."""
        return "" if self._matcher.consume_token(token) else self._matcher.get_error()
