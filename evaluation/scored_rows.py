"""The lines of a test file joined with what models answered: the input of all statistics and reports."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from evaluation.answer_metrics import declines, token_f1
from phi3flow.chats.chat import calls_text
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import RowError, any_text, parse_object, to_line
from phi3flow.phi3_contract import Message

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

T = TypeVar("T")
ALIKE = 0.5  # token F1 of an answer that declines as its reference does
LOST = "Prompt flow returned nothing for this line"


class Answer(NamedTuple):
    """A model's answer, how long it took, and its number of tokens; None where that is unknown."""

    text: str
    seconds: float | None
    tokens: int | None = None


class Record(NamedTuple):
    """The answer to one line, or the error instead of it."""

    answer: str | None
    seconds: float | None
    error: str | None
    tokens: int | None = None


def record_of(said: Mapping[str, Any], error: str | None = None) -> Record:
    """A flow's output for one line as a record; `error` is Prompt flow's, for a line without output.

    An answer that is not valid Unicode (half a surrogate pair) counts as failed.
    """
    if said.get("text") is None:
        return Record(None, None, said.get("error") or error or LOST)
    try:
        answer = any_text("the answer", said["text"])
    except RowError as bad:
        return Record(None, None, f"{bad.field} {bad.what}")
    return Record(answer, said.get("seconds"), None, said.get("tokens"))


class AnsweredPair(NamedTuple):
    """A line that both models answered; paired statistics use only these."""

    row: "ScoredRow"
    base: Answer
    tuned: Answer


@dataclass(frozen=True)
class AskedLine:
    """A line of the test file; `line` counts from 1.

    `messages` is the prompt: everything before the reference answer.
    """

    line: int
    prompt_id: str | None
    slice: str | None
    messages: Sequence[Message]
    reference: str


@dataclass(frozen=True)
class ScoredRow(AskedLine):
    """A line with both models' answers; an answer is None where that model failed.

    Rows with the same `cluster` are not independent of each other. `unanswerable` is what the row declares
    about its reference, None where the reference's wording tells. An answer is to follow `schema`, if there
    is one, and may be calls where the row `uses_tools`.
    """

    base: Answer | None
    tuned: Answer | None
    cluster: str | None = None
    unanswerable: bool | None = None
    schema: Mapping[str, Any] | None = None
    uses_tools: bool = False

    @property
    def declining(self) -> bool:
        """Whether the reference declines."""
        return declines(self.reference) if self.unanswerable is None else self.unanswerable

    def is_declined_by(self, answer: Answer) -> bool:
        """By its wording, or, where the row declares its reference to decline, by being like the reference.

        So declining is known in any language.
        """
        alike = self.unanswerable and token_f1(answer.text, self.reference) >= ALIKE
        return bool(alike) or declines(answer.text)


@dataclass(frozen=True)
class GradedRow(AskedLine):
    """A line with one model's answer and scores, or with the error instead of them."""

    answer: str | None
    error: str | None
    scores: dict[str, float] | None


@dataclass(frozen=True)
class Evaluation:
    """One model's answers to a whole file, each of at most `max_tokens`.

    `metrics` are means over the answered lines.
    """

    rows: Sequence[GradedRow]
    metrics: dict[str, float]
    answered: int
    max_tokens: int

    @property
    def expected(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> int:
        return self.expected - self.answered


def answered_pairs(rows: Iterable[ScoredRow]) -> Iterator[AnsweredPair]:
    """The lines that both models answered, in the order of the file."""
    for row in rows:
        if row.base is not None and row.tuned is not None:
            yield AnsweredPair(row, row.base, row.tuned)


def spread(rows: Sequence[ScoredRow], most: int) -> list[AnsweredPair]:
    """The answered pairs among at most `most` rows, taken at equal distances over the file."""
    return list(answered_pairs(rows[:: -(-len(rows) // most) or 1]))


class Lazy(Sequence[T], Generic[T]):
    """A sequence that makes each item when it is read, so that 100 000 lines need no memory."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "list[T]": ...
    def __getitem__(self, index: int | slice) -> "T | list[T]":
        positions = range(self._length)[index]
        return self._make(positions) if isinstance(positions, int) else [self._make(i) for i in positions]


def chats_in(path: Path, *, tools: bool = False) -> "Lazy[Chat]":
    """The chats of a test file, of any container, each read when needed from a temporary file.

    Checks the whole file now. Raises what `load_chats` raises, and BadInput for tools, which no flow can ask,
    unless `tools` says that none is asked.
    """
    from phi3flow.chats.row_shapes import read_row
    from phi3flow.chats.rows import iterate_chats

    stream, offsets = TemporaryFile(), array("Q")  # noqa: SIM115 - open as long as chats are read
    for chat in iterate_chats(path):
        if chat.uses_tools and not tools:
            raise BadInput(
                f"{chat.origin}: messages: uses tools, which the flows cannot ask",
                hint="evaluate on a test file without them",
            )
        offsets.append(stream.tell())
        stream.write(to_line(chat.row()))

    def read(i: int) -> "Chat":
        stream.seek(offsets[i])
        return read_row(parse_object(stream.readline().removesuffix(b"\n"))).chat

    return Lazy(len(offsets), read)


def scored_rows(chats: "Sequence[Chat]", base: Sequence[Record], tuned: Sequence[Record]) -> Lazy[ScoredRow]:
    """One row for each chat, in their order."""

    def row(i: int) -> ScoredRow:
        chat, answers = chats[i], (_answer(base[i]), _answer(tuned[i]))
        return ScoredRow(
            *_asked(i, chats), *answers, chat.cluster, chat.unanswerable, chat.schema, chat.uses_tools
        )

    return Lazy(len(chats), row)


def graded_rows(
    chats: "Sequence[Chat]", records: Sequence[Record], scores: Callable[[int], dict[str, float] | None]
) -> Lazy[GradedRow]:
    """One row for each chat and one model; `scores(i)` are those of chat `i`, from 0."""

    def row(i: int) -> GradedRow:
        return GradedRow(*_asked(i, chats), records[i].answer, records[i].error, scores(i))

    return Lazy(len(chats), row)


def _asked(i: int, chats: "Sequence[Chat]") -> "tuple[int, str | None, str | None, Sequence[Message], str]":
    chat = chats[i]
    return i + 1, chat.prompt_id, chat.slice, tuple(map(_in_words, chat.prompt)), chat.reference


def _in_words(turn: Mapping[str, Any]) -> Message:
    """A turn as judges and readers see it: its calls are text."""
    called = [calls_text(turn["tool_calls"])] if "tool_calls" in turn else []
    return {"role": turn["role"], "content": "\n".join([*filter(None, [turn["content"]]), *called])}


def say_failures(name: str, records: Sequence[Record]) -> None:
    """Print how many of a model's lines failed, for each error."""
    counts = Counter(record.error or "no error is recorded" for record in records if record.answer is None)
    for error, count in counts.most_common():
        say(f"{name}: {count} of {len(records)} lines failed: {error}")


def _answer(record: Record) -> Answer | None:
    return None if record.answer is None else Answer(record.answer, record.seconds, record.tokens)
