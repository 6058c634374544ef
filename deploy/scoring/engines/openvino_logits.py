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


class Reading:
    """A text that the model reads piece by piece, in an inference request of OpenVINO's."""

    def __init__(self, request: Any) -> None:
        self._request, self._length = request, 0
        request.reset_state()

    def read(self, tokens: Sequence[int]) -> "np.ndarray":
        """The logits after each of the text's next tokens, of shape (tokens, vocabulary)."""
        import numpy as np

        start, self._length = self._length, self._length + len(tokens)
        inputs = {
            "input_ids": np.array([tokens], dtype=np.int64),
            "attention_mask": np.ones((1, self._length), dtype=np.int64),
            "position_ids": np.arange(start, self._length, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        logits: np.ndarray = self._request.infer(inputs)["logits"][0]
        return logits


class Logits:
    """A compiled model that reads texts; `file` is its .xml, `properties` OpenVINO's."""

    def __init__(self, file: Path, properties: Mapping[str, Any]) -> None:
        import openvino

        self._model = openvino.Core().compile_model(file, "CPU", dict(properties))
        self._request = self._model.create_infer_request()

    def reading(self) -> Reading:
        """A text of its own, which may grow beside others."""
        return Reading(self._model.create_infer_request())

    def pieces(self, tokens: Sequence[int]) -> "Iterator[np.ndarray]":
        """The logits after each token of one text, as arrays of shape (at most AT_ONCE, vocabulary)."""
        reading = Reading(self._request)
        for start in range(0, len(tokens), AT_ONCE):
            yield reading.read(tokens[start : start + AT_ONCE])

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
