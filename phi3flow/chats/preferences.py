"""Preference rows: a prompt and two answers to it, of which one is better. Read and validated as chats are.

Accepted, in every container and with every name that a chat's prompt may have:

    {"prompt": text or messages, "chosen": text or messages, "rejected": text or messages}     TRL
    {"chosen": messages, "rejected": messages}         the prompt is what both begin with
    {"messages" or "conversations": [..], "chosen": message, "rejected": message}              ShareGPT
    {"input": {"messages": [..]}, "preferred_output": [message], "non_preferred_output": [message]}   OpenAI
    {"prompt": messages, "chosen": null, "rejected": null, "vote": "tie"}       the chat page's: only counted
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from phi3flow.chats.chat import Message
from phi3flow.chats.field_names import CHATS
from phi3flow.chats.fields import Columns, Fields, is_absent, unfolded
from phi3flow.chats.files.sources import Source
from phi3flow.chats.intake import Intake
from phi3flow.chats.question_rows import is_messages, question_of, read_turns, system_of
from phi3flow.chats.repairs import Messages, Repair, repaired
from phi3flow.chats.row_shapes import read_label
from phi3flow.chats.turns import full_text, read_turn
from phi3flow.core.jsonl import RowError

T = TypeVar("T")
ReadRow = Callable[[Fields, list[Repair], list[str], str], T | None]
_PAIRS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
NO_PREFERENCE = "rows without a preference (a tie) left out"


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt. `chosen` and `rejected` are assistant messages with different texts."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    prompt_id: str | None = None
    origin: str = ""

    @property
    def answers(self) -> dict[str, Message]:
        """By the names that errors give them."""
        return {"chosen": self.chosen, "rejected": self.rejected}


def read_preferences(source: Source, intake: Intake, columns: Columns | None = None) -> Iterator[Preference]:
    """Yield the valid rows; everything else is counted in `intake`. A tie is counted and left out."""
    yield from read_compared(source, intake, preference_of, columns)


def read_compared(
    source: Source, intake: Intake, read: ReadRow[T], columns: Columns | None = None
) -> Iterator[T]:
    """The same by `read`, which takes fields, repairs, unused names and the origin; None is a tie."""
    intake.containers[source.name] = source.container
    for record in source.records():
        repairs: list[Repair] = []
        unused: list[str] = []
        try:
            if isinstance(record.row, RowError):
                raise record.row
            origin = f"{source.name}:{record.place}"
            found = read(Fields(record.row, columns or {}), repairs, unused, origin)
            intake.add(repairs, unused)
        except RowError as error:
            intake.bad.add(source.name, record.place, record.error(error))
            continue
        if found is None:
            intake.notes[NO_PREFERENCE] += 1
        else:
            yield found
    intake.left_out += source.left_out


def preference_of(fields: Fields, repairs: list[Repair], unused: list[str], origin: str) -> Preference | None:
    """A row's preference; None for a tie. Raises RowError."""
    better, worse = _pair(fields)
    vote = fields.take("vote")
    if vote is not None and is_absent(fields.peek(better)) and is_absent(fields.peek(worse)):
        return None
    answers = [answer_of(fields, name, unused) for name in (better, worse)]
    prompt = system_of(fields) + prompt_beside(fields, unused) or _shared_start(*answers)
    prompt_id = read_label(fields, "prompt_id", repairs)
    chosen, rejected = (
        whole(fields.spelled(name), prompt, answer, repairs)
        for name, answer in zip((better, worse), answers, strict=True)
    )
    if chosen[-1]["content"].split() == rejected[-1]["content"].split():
        raise RowError(fields.spelled(worse), f"is the same answer as {fields.spelled(better)}")
    unused += fields.unused
    return Preference(tuple(chosen[:-1]), chosen[-1], rejected[-1], prompt_id, origin)


def _pair(fields: Fields) -> tuple[str, str]:
    """The names of the better and the worse answer in this row. Raises RowError if one is missing."""
    for pair in _PAIRS:
        found = [name for name in pair if fields.has(name)]
        if len(found) == 1:
            missing = pair[1] if found == [pair[0]] else pair[0]
            raise RowError(missing, f"missing beside {fields.spelled(found[0])}")
        if found:
            return pair
    raise RowError("row", "is no preference: it has no 'chosen' and 'rejected'")


def answer_of(fields: Fields, name: str, unused: list[str]) -> Messages:
    """An answer as messages: the last is the answer, others before it repeat the prompt."""
    where, value = fields.spelled(name), unfolded(fields.take(name))
    if isinstance(value, Mapping):
        return [read_turn(where, value, unused.append)]
    if is_messages(value):
        return read_turns(where, value, unused)
    return [{"role": "assistant", "content": full_text(where, "" if value is None else value)}]


def prompt_beside(fields: Fields, unused: list[str]) -> Messages:
    """The prompt that stands beside the answers; empty if they hold it themselves."""
    asked = unfolded(fields.peek("input"))
    if isinstance(asked, Mapping):  # OpenAI's
        fields.take("input")
        unused += [f"input.{key}" for key, value in asked.items() if key != "messages" and value]
        return read_turns("input.messages", asked.get("messages"), unused)
    for name in CHATS:
        if is_messages(fields.peek(name)):
            return read_turns(fields.spelled(name), fields.take(name), unused)
    return question_of(fields, unused)


def _shared_start(better: Messages, worse: Messages) -> Messages:
    """What both conversations begin with."""
    shared = 0
    while shared < min(len(better), len(worse)) - 1 and better[shared] == worse[shared]:
        shared += 1
    return better[:shared]


def whole(where: str, prompt: Messages, answer: Messages, repairs: list[Repair]) -> Messages:
    """Prompt and answer as one valid chat, where the answer may repeat the prompt. Raises RowError."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        raise RowError(where, "answers no question: the prompt does not end with a user turn")
    for repeated in (prompt, [turn for turn in prompt if turn["role"] != "system"]):
        if answer[: len(repeated)] == repeated:
            answer = answer[len(repeated) :]
    if [turn["role"] for turn in answer] != ["assistant"]:
        raise RowError(where, "must be one assistant turn after the prompt")
    messages, done = repaired([*prompt, *answer])
    repairs += done
    return messages
