"""Quantising weights to 4 or 8 bits, checked by how often the model still chooses the same token."""

import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal, NamedTuple

from deploy.export.exporter import Stored
from deploy.scoring.engines.openvino_logits import Logits
from deploy.scoring.load import OPENVINO_FILE
from phi3flow.core.errors import Phi3flowError

GROUP_SIZES = (128, 64, 32, 16)  # weights that share a scale; the larger, the faster and the coarser
# Share of equal tokens. A model of 135 million parameters keeps 92 to 97 % in 8 bits, depending on the CPU's
# arithmetic (bench/LOG.md); a broken quantisation misses most.
ENOUGH = 0.85


Bits = Literal["int4", "int8"]


class Example(NamedTuple):
    """A prompt and the model's greedy answer to it, as token ids."""

    prompt: Sequence[int]
    answer: Sequence[int]


def quantise(folder: Path, widths: Sequence[int], examples: Sequence[Example], bits: Bits) -> Stored:
    """Replace the model in `folder` by its form in `bits`, or by int8 if int4 chooses too many other tokens.

    `widths` are the input widths of the model's layers. Raises Phi3flowError if int8 does too.
    """
    exact = folder / "exact"
    exact.mkdir()
    for file in (OPENVINO_FILE, OPENVINO_FILE.replace(".xml", ".bin")):
        shutil.move(folder / file, exact / file)
    group_size = next((size for size in GROUP_SIZES if not any(width % size for width in widths)), None)
    agreement = 0.0
    for mode in ("int4", "int8") if bits == "int4" and group_size else ("int8",):
        compress(exact / OPENVINO_FILE, folder / OPENVINO_FILE, mode, group_size)
        agreement = _agreement(folder / OPENVINO_FILE, examples)
        if agreement >= ENOUGH:
            shutil.rmtree(exact)
            return Stored(mode, group_size if mode == "int4" else None, round(agreement, 4))
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


def _agreement(model: Path, examples: Sequence[Example]) -> float:
    """The share of the answers' tokens that are the most likely one where they stand."""
    logits = Logits(model, {})
    agreed = [
        token == chosen
        for prompt, answer in examples
        for token, chosen in zip(
            answer, logits.choices([*prompt, *answer])[len(prompt) - 1 : -1], strict=True
        )
    ]
    return sum(agreed) / max(len(agreed), 1)
