"""Compared answers to token ids: the same rendering as `encode`, with prompt and answer apart.

A row is never cut: of two answers of which one lacks its end, neither is the better one.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.chat_template import encode_example
from phi3flow.chats.ratings import Rating
from phi3flow.chats.template_check import unrendered
from phi3flow.core.jsonl import BadRows, RowError
from training.data.encode import IGNORED
from training.data.preferences import Row, as_chat, refuse

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class EncodedAnswers(NamedTuple):
    """`rows` for TRL, each with its `line` (from 1) in `origins`; `answers` are each a row of sft's."""

    rows: "Dataset"
    answers: "Dataset"
    origins: list[str]
    dropped: int


class _Answer(NamedTuple):
    prompt_ids: list[int]
    answer_ids: list[int]


def encode_answers(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], max_length: int, bad: BadRows, *, drop: bool
) -> EncodedAnswers:
    """Every answer with its prompt, in the model's chat template; `drop` leaves out what is too long.

    Counts in `bad` each row that the template does not render whole, and without `drop` each that is longer
    than `max_length` tokens.
    """
    from datasets import Dataset

    made: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    origins: list[str] = []
    dropped = 0
    for row in rows:
        encoded = _encoded(tokenizer, row, bad)
        lengths = {name: _length(answer) for name, answer in encoded.items()}
        name = max(lengths, key=lengths.__getitem__, default="")
        if not name or lengths[name] > max_length:
            dropped += 1
            if name and not drop:
                what = f"{lengths[name]} tokens, more than max_length {max_length}"
                refuse(bad, row, RowError(name, what))
            continue
        origins.append(row.origin)
        made.append(_for_trl(row, encoded) | {"line": len(origins)})
        answers += [_labelled(answer) for answer in encoded.values()]
    return EncodedAnswers(Dataset.from_list(made), Dataset.from_list(answers), origins, dropped)


def _encoded(tokenizer: "PreTrainedTokenizerBase", row: Row, bad: BadRows) -> Mapping[str, _Answer]:
    """Each answer of the row; none for a row that is bad."""
    found = {}
    for name in row.answers:
        chat = as_chat(row, name)
        if error := unrendered(tokenizer, chat):
            refuse(bad, row, error)
            return {}
        ids, mask = encode_example(tokenizer, chat.messages)
        start = mask.index(1)
        found[name] = _Answer(ids[:start], ids[start:])
    return found


def _length(answer: _Answer) -> int:
    return len(answer.prompt_ids) + len(answer.answer_ids)


def _for_trl(row: Row, encoded: Mapping[str, _Answer]) -> dict[str, Any]:
    """The columns of TRL's collators. Both answers follow the same prompt."""
    prompt_ids = next(iter(encoded.values())).prompt_ids
    made: dict[str, Any] = {f"{name}_ids": answer.answer_ids for name, answer in encoded.items()}
    labels = {"label": row.is_good} if isinstance(row, Rating) else {}
    return {"prompt_ids": prompt_ids} | made | labels


def _labelled(answer: _Answer) -> dict[str, Any]:
    labels = [IGNORED] * len(answer.prompt_ids) + answer.answer_ids
    return {"input_ids": answer.prompt_ids + answer.answer_ids, "labels": labels}
