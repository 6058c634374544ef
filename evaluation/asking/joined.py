"""The lines of a test file joined with what was recorded for them: the same rows, whoever asked."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from evaluation.asking.answer_file import Record
from evaluation.asking.lazy import Lazy
from evaluation.rows import Answer, Graded, Judged
from phi3flow.core.console import say

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

Scores = dict[str, float]


def judged_rows(chats: "Sequence[Chat]", base: Sequence[Record], tuned: Sequence[Record]) -> Lazy[Judged]:
    """One row a chat, put together when it is asked for."""

    def row(i: int) -> Judged:
        chat = chats[i]
        return Judged(
            line=i + 1,
            prompt_id=chat.prompt_id,
            slice=chat.slice,
            messages=chat.prompt,
            reference=chat.reference,
            base=_answer(base[i]),
            tuned=_answer(tuned[i]),
            cluster=chat.cluster,
        )

    return Lazy(len(chats), row)


def graded_rows(
    chats: "Sequence[Chat]", records: Sequence[Record], scores: Callable[[int], Scores | None]
) -> Lazy[Graded]:
    """The same for one model; `scores` are those of the chat at a position, from 0."""

    def row(i: int) -> Graded:
        chat, record = chats[i], records[i]
        return Graded(
            line=i + 1,
            prompt_id=chat.prompt_id,
            slice=chat.slice,
            messages=chat.prompt,
            reference=chat.reference,
            answer=record.answer,
            error=None if record.answer is not None else record.error,
            scores=scores(i),
        )

    return Lazy(len(chats), row)


def say_failures(name: str, records: Iterable[Record]) -> None:
    """How many of a model's lines failed, by error."""
    counts = Counter(
        None if record.answer is not None else record.error or "no reason is recorded" for record in records
    )
    for error, count in counts.most_common():
        if error is not None:
            say(f"{name}: {count} of {counts.total()} lines failed: {error}")


def _answer(record: Record) -> Answer | None:
    return None if record.answer is None else Answer(record.answer, record.seconds, record.tokens)
