"""A chat model out of a GGUF file: the weights through transformers, the tokenizer by hand.

Of a file with a GPT-2 vocabulary transformers 5.5 makes another tokenizer: CodeLlama's, with 49 157 words
instead of SmolLM2's 49 152.
"""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.core.errors import BadInput, first_line, translating
from training.models.whole_weights import require_whole

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PREFIX = "tokenizer.ggml."
ORDINARY = 1  # the type of a token that stands for text
# How a file names the way in which its tokenizer cuts text before it merges bytes. Others are not tried.
KNOWN_CUTS = ("smollm",)


class GgufModel(NamedTuple):
    model: "LlamaForCausalLM"
    tokenizer: "PreTrainedTokenizerFast"
    licence: str | None


def read_gguf(file: Path) -> GgufModel:
    """The fp32 model, de-quantised, its tokenizer and the licence that the file names. Raises BadInput."""
    fields = _fields(file)
    tokenizer = _tokenizer(fields, file)
    return GgufModel(_model(file), tokenizer, fields.get("general.license"))


def _fields(file: Path) -> dict[str, Any]:
    """The file's own names for what it holds, with their values. Raises BadInput for what we do not read."""
    from gguf import GGUFReader

    def unreadable(error: Exception) -> Exception:
        return BadInput(
            f"{file}: not a GGUF file: {first_line(error)}", hint="give a file that ends in .gguf"
        )

    with translating(dict.fromkeys((ValueError, OSError, IndexError), unreadable)):
        fields = {name: field.contents() for name, field in GGUFReader(str(file)).fields.items()}
    architecture = fields.get("general.architecture")
    cut = fields.get(f"{PREFIX}pre")
    faults = [
        fault
        for fault, holds in {
            f"its architecture is {architecture}, not llama": architecture != "llama",
            f"its tokenizer is {cut}, and only {KNOWN_CUTS[0]} is known": cut not in KNOWN_CUTS,
            "it has no chat template": "tokenizer.chat_template" not in fields,
        }.items()
        if holds
    ]
    if faults:
        raise BadInput(f"{file}: " + "; ".join(faults), hint="take the model's folder of safetensors instead")
    return fields


def _tokenizer(fields: dict[str, Any], file: Path) -> "PreTrainedTokenizerFast":
    """Byte-level BPE from the file's own tokens and merges, which cuts every digit apart."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = fields[f"{PREFIX}tokens"]
    kinds = fields[f"{PREFIX}token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields[f"{PREFIX}merges"]]
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), bytes_of_words]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind != ORDINARY
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tokens[fields[f"{PREFIX}bos_token_id"]],
        eos_token=tokens[fields[f"{PREFIX}eos_token_id"]],
        unk_token=tokens[fields[f"{PREFIX}unknown_token_id"]],
        padding_side="left",
        model_max_length=fields["llama.context_length"],
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
    )


def _model(file: Path) -> "LlamaForCausalLM":
    import torch
    from transformers import AutoModelForCausalLM

    model: LlamaForCausalLM
    with redirect_stderr(StringIO()):  # its progress bar
        model, info = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `info` names them
        )
    require_whole(str(file), info)
    return model
