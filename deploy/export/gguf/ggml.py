"""Quantising with ggml's own kernels, out of the llama.cpp library that xllamacpp brings.

Its Python interface has no quantiser, and its library does not export llama.cpp's. `ggml_quantize_chunk` does
the work there, too; which tensor gets which type is what llama-quantize does for these architectures.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

from phi3flow.core.errors import Phi3flowError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType

SUPER_BLOCK = 256  # weights that a k-quant describes together
ROWS_AT_ONCE = 1024
# What a row takes whose length is no multiple of SUPER_BLOCK.
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def stored_as(name: str, width: int, weights: str, layers: int, *, tied: bool) -> "GGMLQuantizationType":
    """The type of a matrix with rows of `width`; `tied`: its embeddings are its last layer, too."""
    from gguf import GGMLQuantizationType

    if weights != "q4_k_m":
        return GGMLQuantizationType[weights.upper()]
    chosen = _k_quant(name, layers, tied=tied)
    return GGMLQuantizationType[FALLBACK[chosen] if width % SUPER_BLOCK else chosen]


def _k_quant(name: str, layers: int, *, tied: bool) -> str:
    """More bits for the last layer, for values, and for what feeds half of the layers' outputs."""
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q6_K"
    if "attn_qkv" in name:
        return "Q5_K"
    if "ffn_down" in name and _gets_more_bits(int(name.split(".")[1]), layers):
        return "Q6_K"
    return "Q4_K"


def _gets_more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def quantised(values: "np.ndarray", kind: "GGMLQuantizationType") -> "np.ndarray":
    """A matrix of fp32 in ggml's blocks, as bytes: (rows, bytes of a row). Raises Phi3flowError."""
    import numpy as np
    from gguf import GGMLQuantizationType, quant_shape_to_byte_shape

    if kind == GGMLQuantizationType.F16:
        return values.astype(np.float16)
    made = np.empty(quant_shape_to_byte_shape(values.shape, kind), dtype=np.uint8)
    starts = range(0, len(values), ROWS_AT_ONCE)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # ctypes lets go of Python's lock
        list(pool.map(lambda at: _quantise_rows(values[at : at + ROWS_AT_ONCE], made[at:], kind), starts))
    return made


def _quantise_rows(values: "np.ndarray", made: "np.ndarray", kind: "GGMLQuantizationType") -> None:
    rows, width = values.shape
    written = _kernel()(int(kind), values.ctypes.data, made.ctypes.data, 0, rows, width, None)
    if written != rows * made.shape[1]:
        raise Phi3flowError(f"ggml wrote {written} bytes for {rows} rows of {width} weights in {kind.name}")


@cache
def _kernel() -> "ctypes._NamedFuncPointer":
    import xllamacpp.xllamacpp as library

    quantise = ctypes.CDLL(library.__file__).ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    address, number = ctypes.c_void_p, ctypes.c_int64
    quantise.argtypes = [ctypes.c_int, address, address, number, number, number, address]
    return quantise
