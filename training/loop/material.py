"""What a run learns from, encoded before anything is trained: a row that cannot be encoded fails early."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.chats.rows import load_split
from phi3flow.chats.system_prompt import shared_system_prompt
from training.data.encode import Encoded, encode_chats, packed
from training.loop.start import Run, starting_tokenizer
from training.models.probes import FROM_VALIDATION
from training.ranks import print0

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

VALIDATION_ROWS = 512


class Material(NamedTuple):
    """Encoded rows, and what belongs to them. There is no test set without test.jsonl.

    `estimated` has a row for each text that the model reads; `probed` are chats whose prompts it is asked
    before and after. `lengths` says what became of long chats, by split. Of preferences `origins` says where
    the owner finds each line, and `counts` how many rows there are.
    """

    tokenizer: "PreTrainedTokenizerBase"
    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"
    estimated: "Dataset"
    probed: list[Chat]
    system_prompt: str
    lengths: Mapping[str, dict[str, int]]
    origins: Sequence[str] = ()
    counts: Mapping[str, int] | None = None


def from_chats(run: Run) -> Material:
    """The splits that `prepare` wrote. Raises BadInput."""
    splits = splits_of(run.data)
    tokenizer = starting_tokenizer(run, splits["train"])
    made = {name: encode(run, tokenizer, chats) for name, chats in splits.items()}
    for name, (_, lengths) in made.items():
        if sentence := lengths.sentence(run.recipe.long_chats_rule, run.recipe.max_length):
            print0(f"  {name}: {sentence}")
    train = made["train"].rows
    return Material(
        tokenizer,
        train,
        made["val"].rows,
        made["test"].rows if "test" in made else None,
        estimated=train,
        probed=short(run, tokenizer, splits["val"]),
        system_prompt=shared_system_prompt(chat.messages for chat in splits["train"]),
        lengths={name: lengths.told() for name, (_, lengths) in made.items() if lengths.long_chats},
    )


def short(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat]) -> list[Chat]:
    """The first chats whose prompts an endpoint can be asked: not too long, and without tools."""
    limit, plain = run.recipe.max_length, (chat for chat in chats if not chat.uses_tools)
    found = (chat for chat in plain if len(encode_prompt(tokenizer, chat.prompt)) <= limit)
    return list(islice(found, FROM_VALIDATION))


def splits_of(data: Path) -> dict[str, list[Chat]]:
    """The chats of each split; the first of val.jsonl, and test.jsonl if it is there."""
    paths = {name: data / f"{name}.jsonl" for name in ("train", "val", "test")}
    splits = {name: load_split(path) for name, path in paths.items() if name != "test" or path.exists()}
    return splits | {"val": splits["val"][:VALIDATION_ROWS]}


def encode(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: list[Chat]) -> Encoded:
    """Chats as rows for the trainer, packed if the recipe says so. Raises BadInput."""
    recipe = run.recipe
    rows, lengths = encode_chats(tokenizer, chats, recipe.max_length, recipe.long_chats_rule)
    return Encoded(packed(rows, recipe.max_length) if recipe.packing else rows, lengths)
