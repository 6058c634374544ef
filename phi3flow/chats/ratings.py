"""Rated answers: a prompt, one answer, and whether it is good. Read and validated as preference rows are.

{"prompt": text or messages, "completion": text or messages, "label": true or false}     TRL; a thumb
{"messages": [..], "label": true or false}                         the last turn is the answer
a row of `phi3flow.chats.preferences`                              two ratings: chosen, rejected
"""

from collections.abc import Iterator
from dataclasses import dataclass

from phi3flow.chats.chat import Message
from phi3flow.chats.field_names import ANSWERS, PREFERENCES
from phi3flow.chats.fields import Fields
from phi3flow.chats.files.sources import Source
from phi3flow.chats.intake import Intake
from phi3flow.chats.preferences import answer_of, preference_of, prompt_beside, read_compared, whole
from phi3flow.chats.question_rows import system_of
from phi3flow.chats.repairs import Repair
from phi3flow.chats.row_shapes import read_flag, read_label
from phi3flow.core.jsonl import RowError

LABEL = "label"


@dataclass(frozen=True)
class Rating:
    """An answer to a prompt, and whether it is good."""

    prompt: tuple[Message, ...]
    answer: Message
    is_good: bool
    prompt_id: str | None = None
    origin: str = ""

    @property
    def answers(self) -> dict[str, Message]:
        """By the name that errors give it."""
        return {"completion": self.answer}


def read_ratings(source: Source, intake: Intake) -> Iterator[Rating]:
    """Yield the valid ratings; everything else is counted in `intake`."""
    for found in read_compared(source, intake, _ratings):
        yield from found


def _ratings(
    fields: Fields, repairs: list[Repair], unused: list[str], origin: str
) -> tuple[Rating, ...] | None:
    if any(map(fields.has, PREFERENCES)):
        pair = preference_of(fields, repairs, unused, origin)
        if pair is None:
            return None
        rated = ((pair.chosen, True), (pair.rejected, False))
        return tuple(Rating(pair.prompt, answer, good, pair.prompt_id, origin) for answer, good in rated)
    return (_rating(fields, repairs, unused, origin),)


def _rating(fields: Fields, repairs: list[Repair], unused: list[str], origin: str) -> Rating:
    good = read_flag(fields, LABEL)
    if good is None:
        raise RowError(LABEL, "missing: true for a good answer, else false")
    name = fields.only(ANSWERS)
    prompt = system_of(fields) + prompt_beside(fields, unused)
    answer = answer_of(fields, name, unused) if name else prompt[-1:]  # a chat ends with its answer
    prompt_id = read_label(fields, "prompt_id", repairs)
    where = fields.spelled(name) if name else "messages"
    *before, last = whole(where, prompt if name else prompt[:-1], answer, repairs)
    unused += fields.unused
    return Rating(tuple(before), last, good, prompt_id, origin)
