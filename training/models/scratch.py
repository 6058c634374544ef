"""A Phi-3 with random weights, and its tokenizer: what a recipe with [scratch] starts from.

The tokenizer is trained on the texts at hand, so nothing is downloaded. It has Phi-3's special tokens and
chat template, so template, masks and stop tokens are used as with the published model.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from phi3flow.chats.end_of_turn import stop_token_ids

if TYPE_CHECKING:
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from training.recipes.recipe import Scratch

TURN_TOKENS = ["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|endoftext|>", *TURN_TOKENS]
ROLES = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
BYTES = [f"<0x{value:02X}>" for value in range(256)]
SPACE = "\u2581"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> "PreTrainedTokenizerFast":
    """A byte-pair tokenizer with at most `vocab_size` entries, 256 of them single bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[0], byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS + BYTES, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_like_phi3(tokenizer.to_str())),
        **ROLES,
        padding_side="left",
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _like_phi3(serialised: str) -> str:
    """Make byte tokens ordinary words, and let turn tokens swallow the white space that follows them."""
    state = json.loads(serialised)
    state["added_tokens"] = [
        token | {"rstrip": token["content"] in TURN_TOKENS}
        for token in state["added_tokens"]
        if token["content"] not in BYTES
    ]
    return json.dumps(state)


def new_model(shape: "Scratch", tokenizer: "PreTrainedTokenizerBase", seed: int) -> "Phi3ForCausalLM":
    """Phi-3's architecture, class and stop tokens in the recipe's size, with random fp32 weights."""
    import torch
    from transformers import GenerationConfig, Phi3ForCausalLM

    torch.manual_seed(seed)
    model = Phi3ForCausalLM(new_config(shape, tokenizer))
    model.generation_config = GenerationConfig(**_special_ids(tokenizer))
    return model


def new_config(shape: "Scratch", tokenizer: "PreTrainedTokenizerBase") -> "Phi3Config":
    from transformers import Phi3Config

    return Phi3Config.from_dict(
        _special_ids(tokenizer)
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


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": stop_token_ids(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
