"""A tokenizer in the words of a GGUF file: its pieces, their kinds, and how it cuts text.

llama.cpp has a tokenizer of its own. It knows two kinds that Phi-3-shaped models have: SentencePiece's, where
the piece with the highest score is merged first, and byte-level BPE, whose way to cut text it knows by name.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.end_of_turn import end_of_turn
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ONE_DIGIT = {"type": "Digits", "individual_digits": True}
# How text is cut before bytes are merged, and llama.cpp's name for it.
CUTS = {
    "smollm": {"type": "Sequence", "pretokenizers": [ONE_DIGIT, BYTE_LEVEL]},
    "gpt-2": BYTE_LEVEL,
}
# In the pattern of GPT-4o's tokenizer, which Phi-4-mini has, and in no other that llama.cpp knows.
GPT_4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UNMERGED = -1e6  # score of a piece that no merge makes


class Pieces(NamedTuple):
    """One of each for every token id."""

    texts: list[str]
    types: list[int]
    scores: list[float]


class Kind(NamedTuple):
    """llama.cpp's names for a tokenizer and for how it cuts text."""

    model: str
    pre: str


def tokenizer_kind(folder: Path) -> Kind:
    """Raises BadInput for a tokenizer that llama.cpp does not know."""
    described = read_json(folder / "tokenizer.json")
    model = described["model"]
    if model.get("type") == "BPE" and model.get("byte_fallback"):
        return Kind("llama", "default")
    cut = _cut(described["pre_tokenizer"])
    if model.get("type") == "BPE" and cut:
        return Kind("gpt2", cut)
    raise BadInput(
        f"{folder / 'tokenizer.json'}: llama.cpp has no tokenizer that is known to be the same as this one",
        hint=f"phi3flow export {folder} --format onnx --out DIR, which keeps the tokenizer's own file",
    )


def add_vocabulary(
    writer: "GGUFWriter", folder: Path, tokenizer: "PreTrainedTokenizerBase", size: int
) -> None:
    """Write the tokenizer of `folder`; ids up to `size` without a piece are written as unused.

    Raises BadInput for a tokenizer that llama.cpp does not know.
    """
    kind, described = tokenizer_kind(folder), read_json(folder / "tokenizer.json")
    pieces = _pieces(described, size)
    writer.add_tokenizer_model(kind.model)
    writer.add_tokenizer_pre(kind.pre)
    writer.add_token_list(pieces.texts)
    writer.add_token_types(pieces.types)
    if kind.model == "llama":
        writer.add_token_scores(pieces.scores)
        writer.add_add_space_prefix('"Prepend"' in json.dumps(described["normalizer"]))
    else:
        writer.add_token_merges([" ".join(pair) for pair in _merges(described["model"])])
    _add_special_ids(writer, tokenizer)


def strips_right(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> set[str]:
    """The special tokens that swallow the white space behind them."""
    added = read_json(folder / "tokenizer.json")["added_tokens"]
    return {token["content"] for token in added if token["rstrip"]} & set(tokenizer.get_added_vocab())


def _cut(pre_tokenizer: dict[str, Any] | None) -> str | None:
    if GPT_4O in str(pre_tokenizer).replace("\\\\", "\\"):
        return "gpt-4o"
    return next((name for name, cut in CUTS.items() if cut == pre_tokenizer), None)


def _merges(model: dict[str, Any]) -> list[list[str]]:
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]


def _pieces(described: dict[str, Any], size: int) -> Pieces:
    from gguf import TokenType

    model = described["model"]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(_merges(model)):
        ranks.setdefault("".join(pair), rank)
    texts = [f"[PAD{i}]" for i in range(size)]
    types = [int(TokenType.UNUSED)] * size
    for text, token in model["vocab"].items():
        texts[token] = text
        types[token] = int(TokenType.BYTE if BYTE.fullmatch(text) else TokenType.NORMAL)
    for added in described["added_tokens"]:
        texts[added["id"]] = added["content"]
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    if (unknown := model.get("unk_token")) in model["vocab"]:
        types[model["vocab"][unknown]] = int(TokenType.UNKNOWN)
    return Pieces(texts, types, [-float(ranks.get(text, -UNMERGED)) for text in texts])


def _add_special_ids(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase") -> None:
    """The beginning of a text is the chat template's to write, as in training."""
    turn = end_of_turn(tokenizer)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if (end := tokenizer.eos_token_id if turn is None else turn) is not None:
        writer.add_eos_token_id(end)
        writer.add_eot_token_id(end)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
