"""The logits of an exported model for a given text: how likely it finds it, and what it would choose."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 256  # tokens whose logits exist at once: 33 MB with Phi-3's vocabulary
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class Score(NamedTuple):
    """A token's natural log-likelihood, given those before it; `rank` 1 is the most likely token."""

    logprob: float
    rank: int


class Logits:
    """A compiled model that reads texts, one at a time; `file` is its .xml, `properties` OpenVINO's."""

    def __init__(self, file: Path, properties: Mapping[str, Any]) -> None:
        import openvino

        model = openvino.Core().compile_model(file, "CPU", dict(properties))
        self._request = model.create_infer_request()

    def pieces(self, tokens: Sequence[int]) -> "Iterator[np.ndarray]":
        """The logits after each token, as arrays of shape (at most AT_ONCE, vocabulary)."""
        import numpy as np

        self._request.reset_state()
        for start in range(0, len(tokens), AT_ONCE):
            piece = np.array([tokens[start : start + AT_ONCE]], dtype=np.int64)
            end = start + piece.shape[1]
            inputs = {
                "input_ids": piece,
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(start, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            }
            yield self._request.infer(inputs)["logits"][0]

    def choices(self, tokens: Sequence[int]) -> list[int]:
        """The most likely next token after each token."""
        return [token for piece in self.pieces(tokens) for token in piece.argmax(-1).tolist()]

    def scores(self, tokens: Sequence[int]) -> list[Score]:
        """One for each token but the first. Tokens that are equally likely share the better rank."""
        found: list[Score] = []
        for piece in self.pieces(tokens[:-1]):
            following = tokens[len(found) + 1 : len(found) + 1 + len(piece)]
            found += _scores(piece, following)
        return found


def _scores(logits: "np.ndarray", chosen: Sequence[int]) -> Iterator[Score]:
    """`logits` has the shape (tokens, vocabulary), and `chosen` the token that follows each."""
    import numpy as np

    logits = logits.astype(np.float64)
    largest = logits.max(-1, keepdims=True)
    totals = largest[:, 0] + np.log(np.exp(logits - largest).sum(-1))
    values = logits[np.arange(len(chosen)), chosen]
    ranks = (logits > values[:, None]).sum(-1) + 1
    return map(Score, (values - totals).tolist(), ranks.tolist())
