"""A Phi-3 of any size with random weights: the embedded model's beginning."""

from typing import TYPE_CHECKING, Any

from training.models.loading import stop_token_ids

if TYPE_CHECKING:
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerBase

    from training.recipes.recipe import Scratch


def new_model(shape: "Scratch", tokenizer: "PreTrainedTokenizerBase", seed: int) -> "Phi3ForCausalLM":
    """The same architecture, class and stop tokens as the published Phi-3, in the recipe's size, fp32."""
    import torch
    from transformers import GenerationConfig, Phi3ForCausalLM

    torch.manual_seed(seed)
    model = Phi3ForCausalLM(new_config(shape, tokenizer))
    model.generation_config = GenerationConfig(**_special(tokenizer))
    return model


def new_config(shape: "Scratch", tokenizer: "PreTrainedTokenizerBase") -> "Phi3Config":
    from transformers import Phi3Config

    config = Phi3Config.from_dict(
        _special(tokenizer)
        | {
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": shape.context,
            "original_max_position_embeddings": shape.context,
            "tie_word_embeddings": True,
            "resid_pdrop": shape.dropout,
        },
        attn_implementation="sdpa",
    )
    return config


def _special(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": stop_token_ids(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
