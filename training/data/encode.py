"""Chats to training examples: token ids, and labels that are -100 wherever no loss is borne."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phi3flow.chats.chat_template import encode_example
from phi3flow.chats.rows import Chat
from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
SHOWN_PROBLEMS = 20


def encode_chats(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat], max_length: int, source: str
) -> "Dataset":
    """A dataset of `input_ids`, `labels` (loss on assistant tokens only) and the `line` they stand on.

    Raises BadInput naming each line of `source` that is longer than `max_length` tokens: a chat cut before
    its answer ends would teach the model not to stop.
    """
    from datasets import Dataset

    rows, problems = [], []
    for line, chat in enumerate(chats, start=1):
        ids, mask = encode_example(tokenizer, chat.messages)
        if len(ids) > max_length:
            problems.append(
                f"{source}:{line}: messages: {len(ids)} tokens, more than max_length {max_length}"
            )
            continue
        if not any(mask):
            problems.append(f"{source}:{line}: messages: no token bears loss")
            continue
        labels = [token if bears else IGNORED for token, bears in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, "labels": labels, "line": line})
    if problems:
        more = f"\n... and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise BadInput(
            "\n".join(problems[:SHOWN_PROBLEMS]) + more,
            hint="shorten these chats, or raise max_length in a copy of the recipe's file and pass --recipe "
            "my.toml (docs/training.md, Recipes)",
        )
    return Dataset.from_list(rows)


def packed(rows: "Dataset", max_length: int) -> "Dataset":
    """Several chats to a row of at most `max_length` tokens, best fit first; `seq_lengths` keeps them apart.

    The collator turns the lengths into positions that start anew with each chat, and attention into a mask in
    which no chat sees another.
    """
    from datasets import Dataset
    from trl import pack_dataset

    # Only lists of the chats' lengths can be packed, so each token carries its chat's line.
    lines = [[line] * len(ids) for line, ids in zip(rows["line"], rows["input_ids"], strict=True)]
    columns = {"input_ids": rows["input_ids"], "labels": rows["labels"], "line": lines}
    return pack_dataset(Dataset.from_dict(columns), max_length, "bfd")
