"""Which requests go to the teacher, and which passages each of them may cite."""

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from phi3flow.chats.alike.asked_alike import counted_words, weighted
from phi3flow.distillation.candidates import (
    CUT,
    NO_MORE,
    NO_PASSAGE,
    NONSENSE,
    Candidate,
    Checked,
    LeftOut,
)
from phi3flow.distillation.documents import Given
from phi3flow.distillation.passages import Passage, holds
from phi3flow.distillation.prompts import (
    ANSWER_TOKENS,
    QUESTIONS,
    WRITE_TOKENS,
    Item,
    Marks,
    answer_messages,
    read_reply,
    write_messages,
)
from phi3flow.distillation.replies import Request, Said
from phi3flow.phi3_contract import EndpointError

MOST_VISITS = 6  # of one passage
SHOWN_PASSAGES = 5  # to answer a question that was given
_AT_ONCE = 100


class Task(NamedTuple):
    """A request, the passages it shows, and the question if one was given."""

    request: Request
    passages: tuple[Passage, ...]
    given: Given | None = None

    @property
    def place(self) -> str:
        return self.given.origin if self.given else str(self.passages[0])

    def is_readable(self, said: Said) -> bool:
        return not self.passages or read_reply(said.text, asked=self.given is not None).is_readable

    def read(self, said: Said | EndpointError) -> Checked:
        """The candidates in a reply, or why there is none."""
        if isinstance(said, EndpointError):
            return Checked([], [LeftOut(self.place, f"the teacher: {said}", self._question)])
        if self.given and not self.passages:
            why = CUT if said.is_cut else ""
            return Checked([], [LeftOut(self.place, why, self._question)]) if why else self._plain(said)
        found = read_reply(said.text, asked=self.given is not None)
        if found.items:
            items = found.items[:1] if self.given else found.items
            return Checked([self._candidate(item) for item in items], [])
        nothing = NO_PASSAGE if self.given else NO_MORE
        why = nothing if found.none else CUT if said.is_cut else NONSENSE
        return Checked([], [LeftOut(self.place, why, self._question)])

    @property
    def _question(self) -> str:
        return str(self.given.prompt[-1]["content"]) if self.given else ""

    def _plain(self, said: Said) -> Checked:
        assert self.given  # noqa: S101 - for the type checker
        return Checked([Candidate(self.given.prompt, said.text.strip(), origin=self.given.origin)], [])

    def _candidate(self, item: Item) -> Candidate:
        """With the passage that holds its quote; the first one if none does, and the checks say so."""
        passage = next((one for one in self.passages if holds(one.text, item.quote)), self.passages[0])
        if self.given:
            return Candidate(self.given.prompt, item.answer, passage, item.quote, self.given.origin)
        asked = {"role": "user", "content": item.question}
        return Candidate((asked,), item.answer, passage, item.quote)


class Tasks(Protocol):
    """Where requests come from. `most` is how many rows could come out at first glance."""

    most: int

    def next(self, missing: int) -> list[Task]:
        """Tasks for about as many rows as are missing; none when nothing is left to ask."""

    def heard(self, task: Task, kept: Sequence[Candidate]) -> None:
        """What became of a task."""


class FromPassages:
    """Questions about passages, in an order that takes all documents in turn.

    A passage is asked again, for other questions, as long as it gave one, `visits` times at most.
    """

    def __init__(self, passages: Sequence[Passage], marks: Marks, visits: int) -> None:
        ordered = sorted(passages, key=lambda one: hashlib.sha256(one.text.encode()).digest())
        self._waiting = deque(ordered)
        self._questions: dict[Passage, list[str]] = {one: [] for one in ordered}
        self._visits = dict.fromkeys(ordered, 0)
        self._marks, self._most_visits = marks, visits
        self.most = QUESTIONS * len(ordered)

    def next(self, missing: int) -> list[Task]:
        count = min(math.ceil(missing / QUESTIONS), len(self._waiting))
        return [self._task(self._waiting.popleft()) for _ in range(count)]

    def _task(self, passage: Passage) -> Task:
        self._visits[passage] += 1
        messages = write_messages(passage, self._questions[passage], self._marks)
        return Task(Request(messages, WRITE_TOKENS), (passage,))

    def heard(self, task: Task, kept: Sequence[Candidate]) -> None:
        passage = task.passages[0]
        self._questions[passage] += [one.question for one in kept]
        if kept and self._visits[passage] < self._most_visits:
            self._waiting.append(passage)


class FromQuestions:
    """Questions that were given, each with the five passages whose words are nearest to its own.

    `without` are those that share no word with any passage: they are not asked.
    """

    def __init__(self, questions: Sequence[Given], passages: Sequence[Passage], marks: Marks) -> None:
        nearest = _nearest(questions, passages)
        asked = [one for one in zip(questions, nearest, strict=True) if one[1] or not passages]
        self._waiting = deque(asked)
        self._marks = marks
        self.without = [one for one, found in zip(questions, nearest, strict=True) if passages and not found]
        self.most = len(asked)

    def next(self, missing: int) -> list[Task]:
        return [self._task(*self._waiting.popleft()) for _ in range(min(missing, len(self._waiting)))]

    def _task(self, given: Given, passages: tuple[Passage, ...]) -> Task:
        messages = answer_messages(given.prompt, passages, self._marks)
        return Task(Request(messages, ANSWER_TOKENS), passages, given)

    def heard(self, task: Task, kept: Sequence[Candidate]) -> None:
        pass


def _nearest(questions: Sequence[Given], passages: Sequence[Passage]) -> list[tuple[Passage, ...]]:
    """For each question the passages with the highest cosine of TF-IDF weighted words, above 0."""
    if len(passages) <= SHOWN_PASSAGES:
        return [tuple(passages)] * len(questions)
    asked = (" ".join(turn["content"] for turn in one.prompt if turn["role"] == "user") for one in questions)
    vectors = weighted([counted_words([text]) for text in (*(one.text for one in passages), *asked)])
    ours, theirs = vectors[: len(passages)], vectors[len(passages) :]
    found: list[tuple[Passage, ...]] = []
    for start in range(0, len(questions), _AT_ONCE):
        cosines = (theirs[start : start + _AT_ONCE] @ ours.T).toarray()
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :SHOWN_PASSAGES]
        found += [
            tuple(passages[i] for i in row if cosine[i] > 0)
            for row, cosine in zip(best, cosines, strict=True)
        ]
    return found
