"""The test file's lines joined with the answers to them; every runner makes its rows here."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.asking.answer_file import Record
from evaluation.rows import Answer, GradedRow, Lazy, ScoredRow
from phi3flow.core.console import say

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

Scores = dict[str, float]


def chats_in(path: Path) -> "Lazy[Chat]":
    """The chats of a test file, read from it when needed. Checks the whole file now.

    Raises what `load_chats` raises.
    """
    from phi3flow.chats.rows import iterate_chats, parse_row

    for _ in iterate_chats(path):
        pass
    stream = path.open("rb")
    offsets, position = array("Q"), 0
    for line in stream:
        if line.strip():
            offsets.append(position)
        position += len(line)

    def chat(i: int) -> "Chat":
        stream.seek(offsets[i])
        return parse_row(stream.readline().removesuffix(b"\n"))

    return Lazy(len(offsets), chat)


def scored_rows(chats: "Sequence[Chat]", base: Sequence[Record], tuned: Sequence[Record]) -> Lazy[ScoredRow]:
    """One row for each chat, in their order."""

    def row(i: int) -> ScoredRow:
        chat = chats[i]
        return ScoredRow(
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
) -> Lazy[GradedRow]:
    """One row for each chat and one model; `scores(i)` are those of chat `i`, from 0."""

    def row(i: int) -> GradedRow:
        chat, record = chats[i], records[i]
        error = None if record.answer is not None else record.error
        about = (i + 1, chat.prompt_id, chat.slice, chat.prompt, chat.reference)
        return GradedRow(*about, record.answer, error, scores(i))

    return Lazy(len(chats), row)


def say_failures(name: str, records: Iterable[Record]) -> None:
    """Print how many of a model's lines failed, for each error."""
    counts = Counter(
        None if record.answer is not None else record.error or "no error is recorded" for record in records
    )
    for error, count in counts.most_common():
        if error is not None:
            say(f"{name}: {count} of {counts.total()} lines failed: {error}")


def _answer(record: Record) -> Answer | None:
    return None if record.answer is None else Answer(record.answer, record.seconds, record.tokens)
