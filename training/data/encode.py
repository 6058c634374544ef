"""Chats to training examples: token ids, and labels that are -100 for all but assistant tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import Example
from phi3flow.chats.template_check import keep_tools, unrendered
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import BadRows, RowError
from training.data.long_chats import Fitted, Lengths, LongChats, answers_in, fit

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # torch's ignore_index: tokens with this label do not count toward the loss
LONG_HINT = (
    "shorten these chats, or raise max_length or set long_chats in a copy of the recipe's file and pass "
    "--recipe my.toml (docs/training.md, Recipes)"
)


class Encoded(NamedTuple):
    """A dataset of `input_ids`, `labels` and `line`, and what became of chats that are too long."""

    rows: "Dataset"
    lengths: Lengths


def encode_chats(
    tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat], max_length: int, long_chats: LongChats
) -> Encoded:
    """Only assistant tokens that bear loss have labels; `line` is the chat's number, from 1.

    Where a chat has tools, the tokenizer's template gets our rendering of them if its own has none.
    Raises BadInput with each chat that the model's chat template does not render whole, and with "refuse"
    each that is longer than `max_length` tokens.
    """
    from datasets import Dataset

    keep_tools(tokenizer, chats)
    require_rendered(tokenizer, chats)
    rows: list[dict[str, Any]] = []
    bad, lengths = BadRows(), Lengths()
    for line, chat in enumerate(chats, start=1):
        fitted = fit(tokenizer, chat, max_length, long_chats)
        if fitted.tokens > max_length and long_chats == "refuse":
            what = f"{fitted.tokens} tokens, more than max_length {max_length}"
            bad.add_at(chat.origin, RowError("messages", what))
        _count(lengths, fitted, max_length)
        rows += [_row(example, line) for example in fitted.examples]
    if bad.total:
        raise BadInput(bad.report(), hint=LONG_HINT)
    if not rows:
        raise BadInput(f"no chat fits into max_length {max_length}", hint=LONG_HINT)
    return Encoded(Dataset.from_list(rows), lengths)


def _row(example: Example, line: int) -> dict[str, Any]:
    ids, mask = example
    labels = [token if counts else IGNORED for token, counts in zip(ids, mask, strict=True)]
    return {"input_ids": ids, "labels": labels, "line": line}


def _count(lengths: Lengths, fitted: Fitted, max_length: int) -> None:
    lengths.chats += 1
    lengths.tokens += fitted.tokens
    lengths.examples += len(fitted.examples)
    lengths.kept_tokens += sum(len(example.input_ids) for example in fitted.examples)
    if fitted.tokens > max_length:
        lengths.long_chats += 1
        lengths.dropped_chats += not fitted.examples
        if fitted.examples:
            lengths.unlearned_answers += fitted.answers - sum(map(answers_in, fitted.examples))


def require_rendered(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat]) -> None:
    """Raise BadInput with each chat whose words the model's chat template leaves out or refuses."""
    bad = BadRows()
    for chat in chats:
        if error := unrendered(tokenizer, chat):
            bad.add_at(chat.origin, error)
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
