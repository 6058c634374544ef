"""A byte-pair tokenizer in the shape of Phi-3's: same special tokens, same chat template, few words.

It is trained on the texts at hand, so the embedded model needs no download, and everything downstream
(template, masks, stop tokens) meets the tokens it will meet in the real model.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = [
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|user|>",
]
ROLES = dict(
    zip(
        ("unk_token", "bos_token", "eos_token", "pad_token"),
        ("<unk>", "<s>", "<|endoftext|>", "<|endoftext|>"),
        strict=True,
    )
)
TURN_TOKENS = {"<|assistant|>", "<|system|>", "<|end|>", "<|user|>"}
BYTES = [f"<0x{value:02X}>" for value in range(256)]
SPACE = "\u2581"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> "PreTrainedTokenizerFast":
    """Train on `texts`; the vocabulary has at most `vocab_size` entries, 256 of them single bytes."""
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
        tokenizer_object=Tokenizer.from_str(_as_phi3_has_them(tokenizer.to_str())),
        **ROLES,
        padding_side="left",
        model_max_length=max_length,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _as_phi3_has_them(serialised: str) -> str:
    """Byte tokens are ordinary words; turn tokens swallow the white space that follows them."""
    state = json.loads(serialised)
    state["added_tokens"] = [
        token | {"rstrip": token["content"] in TURN_TOKENS}
        for token in state["added_tokens"]
        if token["content"] not in BYTES
    ]
    return json.dumps(state)
