"""A Llama written down as a Phi-3: the same function, in the architecture that everything here loads.

Llama without biases is Phi-3 with two pairs of matrices apart: Phi-3 stacks the queries', keys' and values'
projections into one, and the feed-forward's gate and its other half into another.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "initializer_range",
    "attention_dropout",
    "tie_word_embeddings",
)


def phi3_from(llama: "LlamaForCausalLM", *, stops: list[int], pad: int) -> "Phi3ForCausalLM":
    """The same weights as a Phi-3, whose answers end at the ids `stops`. Raises BadInput where none is."""
    import torch
    from transformers import GenerationConfig, Phi3ForCausalLM

    require_convertible(llama.config)
    special = {"bos_token_id": llama.config.bos_token_id, "eos_token_id": stops, "pad_token_id": pad}
    with torch.device("meta"):
        model = Phi3ForCausalLM(_config(llama.config, special))
    model = model.to_empty(device="cpu")
    # Rotary frequencies are no weights: a model made on the meta device has to compute them.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.load_state_dict(stacked(llama.state_dict()), strict=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(**special)
    return model.eval()


def require_convertible(config: "LlamaConfig") -> None:
    """Raise BadInput with everything in a configuration that Phi-3's architecture does not have."""
    faults = _faults(config)
    if faults:
        raise BadInput(
            "this model cannot be written down as a Phi-3: " + "; ".join(faults),
            hint="phi3flow base --pretrained without --model takes one that can; so can SmolLM2 of any size",
        )


def _faults(config: "LlamaConfig") -> list[str]:
    if config.model_type != "llama":
        return [f"its architecture is {config.model_type}, not llama"]
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    width = config.hidden_size // config.num_attention_heads
    found = {
        "its attention has biases": config.attention_bias,
        "its feed-forward layers have biases": config.mlp_bias,
        f"its positions are scaled by {rope}": rope != "default",
        f"its heads are {config.head_dim} wide instead of {width}": config.head_dim not in (None, width),
    }
    return [fault for fault, holds in found.items() if holds]


def stacked(weights: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Llama's state dict under Phi-3's names."""
    import torch

    apart = {part: name for name, parts in STACKED.items() for part in parts}
    made: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        if part not in apart:
            made[name] = value
        elif part == STACKED[apart[part]][0]:
            parts = [weights[f"{layer}.{each}.weight"] for each in STACKED[apart[part]]]
            made[f"{layer}.{apart[part]}.weight"] = torch.cat(parts)
    return made


def _config(llama: "LlamaConfig", special: Mapping[str, Any]) -> "Phi3Config":
    from transformers import Phi3Config

    shared = {name: getattr(llama, name) for name in SHARED}
    return Phi3Config(
        **shared,
        **special,
        original_max_position_embeddings=llama.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": llama.rope_parameters["rope_theta"]},
    )
