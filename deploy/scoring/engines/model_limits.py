"""What a model folder's configuration says about serving it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

CACHE_BYTES = 4 << 30  # of keys and values, for all answers together
BYTES_PER_VALUE = 4


def cache_tokens(config: "PretrainedConfig") -> int:
    """How many tokens' keys and values, of every layer and in fp32, make up CACHE_BYTES."""
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    return CACHE_BYTES // (2 * BYTES_PER_VALUE * int(config.num_hidden_layers * width))


def stop_ids(own: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """What the model itself says ends an answer, and Phi-3's end of turn where a model folder forgot it."""
    from training.models.loading import stop_token_ids

    eos = own.eos_token_id if own else None
    return frozenset([*(eos if isinstance(eos, list) else [eos] if eos is not None else [])]) | frozenset(
        stop_token_ids(tokenizer)
    )
