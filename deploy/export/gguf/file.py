"""A model folder as one GGUF file, for llama.cpp and what is built on it: Ollama, LM Studio.

The names are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; `gguf`, which llama.cpp's
authors keep, knows the tensors of an architecture.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.export.gguf.chat_template import for_llama_cpp
from deploy.export.gguf.ggml import quantised, stored_as
from deploy.export.gguf.vocabulary import add_vocabulary, strips_right
from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

ARCHITECTURE = "Phi3ForCausalLM"
FACTORS = {"rope_factors_long": "long_factor", "rope_factors_short": "short_factor"}
FILE_TYPES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}


def write_gguf(
    folder: Path,
    file: Path,
    config: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerBase",
    weights: str,
) -> None:
    """Write one tensor at a time. Raises BadInput for another architecture or an unknown tokenizer."""
    from gguf import GGUFWriter

    require_known(folder, config)
    writer = GGUFWriter(file, "phi3")
    try:
        _add_sizes(writer, config, weights)
        _add_rope(writer, config)
        add_vocabulary(writer, folder, tokenizer, config.vocab_size)
        writer.add_chat_template(for_llama_cpp(tokenizer, strips_right(folder, tokenizer)))
        _write_tensors(writer, folder, config, weights)
    finally:
        writer.close()


def require_known(folder: Path, config: "PretrainedConfig") -> None:
    found = next(iter(config.architectures or []), "no architecture")
    if found != ARCHITECTURE:
        raise BadInput(
            f"{folder / 'config.json'}: the GGUF converter does not know {found}; it knows {ARCHITECTURE}",
            hint=f"phi3flow base --pretrained --model {folder} --out DIR writes a Llama down as a Phi-3",
        )


def _add_sizes(writer: "GGUFWriter", config: "PretrainedConfig", weights: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(LlamaFileType[FILE_TYPES[weights]])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _add_rope(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    """longrope's two sets of factors are tensors; the scale of attention is a number."""
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(_rotated(config))
    if rope.get("rope_type") == "longrope":
        original = config.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        stretched = config.max_position_embeddings / original
        scale = math.sqrt(1 + math.log(stretched) / math.log(original)) if stretched > 1 else 1.0
        writer.add_rope_scaling_attn_factors(scale)


def _rotated(config: "PretrainedConfig") -> int:
    width = config.hidden_size // config.num_attention_heads
    return int(width * config.rope_parameters.get("partial_rotary_factor", 1.0))


def _write_tensors(writer: "GGUFWriter", folder: Path, config: "PretrainedConfig", weights: str) -> None:
    import numpy as np
    from gguf import quant_shape_to_byte_shape

    kinds: dict[str, Any] = {}
    for name, shape in _shapes(folder, config).items():
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
            continue
        kinds[name] = kind = stored_as(
            name, shape[-1], weights, config.num_hidden_layers, tied=config.tie_word_embeddings
        )
        if weights == "f16":
            writer.add_tensor_info(name, shape, np.dtype(np.float16), 2 * math.prod(shape))
        else:
            stored = quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), math.prod(stored), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, values in _tensors(folder, config):
        writer.write_tensor_data(quantised(values, kinds[name]) if name in kinds else values)


def _shapes(folder: Path, config: "PretrainedConfig") -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(part.get_shape()) for name, part in _stored(folder, config)}
    return {name: tuple(values.shape) for name, values in _factors(config).items()} | shapes


def _tensors(folder: Path, config: "PretrainedConfig") -> "Iterator[tuple[str, np.ndarray]]":
    """In the order of `_shapes`."""
    import numpy as np
    import torch

    yield from _factors(config).items()
    for name, part in _stored(folder, config):
        yield name, np.ascontiguousarray(part[:].to(torch.float32).numpy())


def _factors(config: "PretrainedConfig") -> "dict[str, np.ndarray]":
    import numpy as np

    rope = config.rope_parameters
    if rope.get("rope_type") != "longrope":
        return {}
    return {f"{name}.weight": np.array(rope[field], dtype=np.float32) for name, field in FACTORS.items()}


def _stored(folder: Path, config: "PretrainedConfig") -> Iterator[tuple[str, Any]]:
    """Each tensor of the folder's safetensors under its name in a GGUF file, unread."""
    from gguf import MODEL_ARCH, get_tensor_name_map
    from safetensors import safe_open

    names = get_tensor_name_map(MODEL_ARCH.PHI3, config.num_hidden_layers)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for own in sorted(tensors.keys()):
                if own == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                name = names.get_name(own, try_suffixes=(".weight",))
                if name is None:
                    raise BadInput(f"{file}: {own}: a Phi-3 has no such tensor", hint="train it again")
                yield name, tensors.get_slice(own)
