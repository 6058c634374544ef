"""Chats to training examples: token ids, and labels that are -100 for all but assistant tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import encode_example
from phi3flow.chats.template_check import unrendered
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import BadRows, RowError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # torch's ignore_index: tokens with this label do not count toward the loss


def encode_chats(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat], max_length: int, source: str
) -> "Dataset":
    """A dataset of `input_ids`, `labels` (only assistant tokens count toward the loss) and `line`.

    Raises BadInput with each line of `source` that the model's chat template does not render whole, and each
    that is longer than `max_length` tokens. Nothing is truncated: a chat cut before its answer ends would teach
    the model not to stop.
    """
    require_rendered(tokenizer, chats, source)
    from datasets import Dataset

    rows, bad = [], BadRows()
    for line, chat in enumerate(chats, start=1):
        ids, mask = encode_example(tokenizer, chat.messages, chat.tools)
        if len(ids) > max_length:
            bad.add(
                source, line, RowError("messages", f"{len(ids)} tokens, more than max_length {max_length}")
            )
            continue
        if not any(mask):
            bad.add(source, line, RowError("messages", "no token counts toward the loss"))
            continue
        labels = [token if counts else IGNORED for token, counts in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, "labels": labels, "line": line})
    if bad.total:
        raise BadInput(
            bad.report(),
            hint="shorten these chats, or raise max_length in a copy of the recipe's file and pass --recipe "
            "my.toml (docs/training.md, Recipes)",
        )
    return Dataset.from_list(rows)


def require_rendered(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat], source: str) -> None:
    """Raise BadInput with each chat whose words the model's chat template leaves out or refuses."""
    bad = BadRows()
    for line, chat in enumerate(chats, start=1):
        if error := unrendered(tokenizer, chat):
            bad.add(source, line, error)
    if bad.total:
        raise BadInput(bad.report(), hint="take these parts out of the chats, or start from another model")


def packed(rows: "Dataset", max_length: int) -> "Dataset":
    """Several chats in a row of at most `max_length` tokens, best fit first; `seq_lengths` separates them.

    The collator turns the lengths into positions that restart with each chat, and attention turns those into
    a mask in which no chat sees another.
    """
    from datasets import Dataset
    from trl import pack_dataset

    # pack_dataset packs only lists of the chats' lengths, so each token carries its chat's line.
    lines = [[line] * len(ids) for line, ids in zip(rows["line"], rows["input_ids"], strict=True)]
    columns = {"input_ids": rows["input_ids"], "labels": rows["labels"], "line": lines}
    return pack_dataset(Dataset.from_dict(columns), max_length, "bfd")
