"""Quantising weights to 4 or 8 bits, checked by how often the model still chooses the same token."""

import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

from deploy.scoring.load import OPENVINO_FILE
from phi3flow.core.errors import Phi3flowError

GROUP_SIZES = (128, 64, 32, 16)  # weights that share a scale; the larger, the faster and the coarser
ENOUGH = 0.95  # share of equal tokens: a real model in 4 bits misses a few, a broken one misses most


Bits = Literal["int4", "int8"]


@dataclass(frozen=True)
class Quantised:
    """`agreement` is the share of the model's tokens that the quantised model chooses too."""

    mode: str
    group_size: int | None
    agreement: float


class Example(NamedTuple):
    """A prompt and the model's greedy answer to it, as token ids."""

    prompt: Sequence[int]
    answer: Sequence[int]


def quantise(folder: Path, widths: Sequence[int], examples: Sequence[Example], bits: Bits) -> Quantised:
    """Replace the model in `folder` by its form in `bits`, or by int8 if int4 chooses too many other tokens.

    `widths` are the input widths of the model's layers. Raises Phi3flowError if int8 does too.
    """
    exact = folder / "exact"
    exact.mkdir()
    for file in (OPENVINO_FILE, OPENVINO_FILE.replace(".xml", ".bin")):
        shutil.move(folder / file, exact / file)
    group_size = next((size for size in GROUP_SIZES if not any(width % size for width in widths)), None)
    expected = _choices(exact / OPENVINO_FILE, examples)
    agreement = 0.0
    for mode in ("int4", "int8") if bits == "int4" and group_size else ("int8",):
        compress(exact / OPENVINO_FILE, folder / OPENVINO_FILE, mode, group_size)
        chosen = _choices(folder / OPENVINO_FILE, examples)
        agreement = sum(a == b for a, b in zip(expected, chosen, strict=True)) / len(expected)
        if agreement >= ENOUGH:
            shutil.rmtree(exact)
            return Quantised(mode, group_size if mode == "int4" else None, round(agreement, 4))
    raise Phi3flowError(
        f"in 8 bits the model chooses only {agreement:.0%} of the tokens that it chose before",
        hint="export without --int4 and --int8",
    )


def compress(source: Path, target: Path, mode: str, group_size: int | None) -> None:
    """Write the layers in `mode`; nncf keeps embeddings and the last layer in int8."""
    import nncf
    import openvino

    nncf.set_log_level("ERROR")
    model = openvino.Core().read_model(source)
    if mode == "int4":
        options = {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": group_size, "ratio": 1.0}
    else:
        options = {"mode": nncf.CompressWeightsMode.INT8_ASYM}
    with redirect_stdout(StringIO()):  # its progress bar
        compressed = nncf.compress_weights(model, **options)
    openvino.save_model(compressed, target, compress_to_fp16=False)


def _choices(model: Path, examples: Sequence[Example]) -> list[int]:
    """The most likely token at each position of each answer, given the prompt and the answer before it."""
    import openvino

    request = openvino.Core().compile_model(model, "CPU").create_infer_request()
    return [token for example in examples for token in _choose(request, example)]


def _choose(request: Any, example: Example) -> list[int]:
    """The chosen tokens of one answer; logits have the shape (1, tokens, vocabulary)."""
    import numpy as np

    ids = np.array([[*example.prompt, *example.answer]], dtype=np.int64)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    request.reset_state()
    logits = request.infer(inputs)["logits"][0]
    tokens: list[int] = logits.argmax(-1)[len(example.prompt) - 1 : -1].tolist()
    return tokens
