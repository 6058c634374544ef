"""What people said about a run's answers as rows: preferences, or chats to train on.

Each row is checked against the held-out test set: no test question becomes training data.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from phi3flow.chats.alike.tested import tested, texts_asked
from phi3flow.chats.chat import Chat, Message, bears_loss
from phi3flow.chats.personal_data import without_personal_data
from ui.store.feedback import KeptTurn, Vote

Row = Mapping[str, Any]
RowKind = Literal["chats", "preferences", "thumbs"]
MESSAGES = ("messages", "prompt", "chosen", "rejected", "completion")
# Why rows are not exported, as the command says it.
TEST_QUESTION, REPEATED = "ask a question of the test set", "the same row again"
AGAINST_DOWN = "answers with thumb up against thumb down"
AGAINST_EARLIER = "answers with thumb up against earlier ones"
THUMBS_UP, THUMBS_DOWN = "answers with thumb up", "answers with thumb down"
NO_PREFERENCE, SAME = "votes without a preference (tie, both bad)", "both answers are the same"


@dataclass
class Export:
    """Rows, from what each was made, and what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, source: str, row: Row) -> None:
        self.made[source] += 1
        self.rows.append(row)

    def keep(self, wanted: Iterable[bool], why: str) -> None:
        kept = [row for row, keeps in zip(self.rows, wanted, strict=True) if keeps]
        self.left_out[why] += len(self.rows) - len(kept)
        self.rows = kept


def exported(kind: RowKind, turns: Sequence[KeptTurn], votes: Sequence[Vote], test: Sequence[Chat]) -> Export:
    """The rows of one kind, without repetitions and without what `test` asks."""
    makers = {"preferences": lambda: preferences(turns, votes), "thumbs": lambda: thumbs(turns)}
    export = makers.get(kind, lambda: chats(turns, test))()
    export.keep(_first_of_each(export.rows), REPEATED)
    asked = [list(_asked_in(row)) for row in export.rows]
    export.keep([place is None for place in tested(asked, test)], TEST_QUESTION)
    export.left_out = +export.left_out
    return export


def preferences(turns: Sequence[KeptTurn], votes: Sequence[Vote]) -> Export:
    """`prompt`, `chosen`, `rejected` as lists of messages, from votes, corrections, and thumbs.

    Of two answers to the same question at the same place of a chat, one with a thumb up is better than one
    with a thumb down, and than an earlier one without a thumb, after which it was asked again.
    """
    export = Export()
    for vote in votes:
        if vote.chosen is None or vote.rejected is None:
            export.left_out[NO_PREFERENCE] += 1
        else:
            _prefer(export, "votes", _Pair(vote.prompt, vote.chosen, vote.rejected, vote.ballot))
    before = _Before(turns)
    for turn in turns:
        if turn.corrected and turn.answer.strip():
            prompt = before.prompt(turn)
            pair = _Pair(prompt, turn.corrected, turn.answer, turn.id, turn.comment)
            _prefer(export, "corrected answers", pair)
    for beside in _versions(turns):
        for position, turn in enumerate(beside):
            worse = [other for other in beside if other.thumb == 0]
            worse += [other for other in beside[:position] if other.thumb is None]
            for other in worse if turn.is_good else ():
                source = AGAINST_DOWN if other.thumb == 0 else AGAINST_EARLIER
                prompt = before.prompt(turn)
                _prefer(export, source, _Pair(prompt, turn.answer, other.answer, turn.id, turn.comment))
    return export


class _Pair(NamedTuple):
    prompt: Sequence[Message]
    chosen: str
    rejected: str
    prompt_id: str
    comment: str = ""


def _prefer(export: Export, source: str, pair: _Pair) -> None:
    if pair.chosen.split() == pair.rejected.split():
        export.left_out[SAME] += 1
        return
    answers = {"chosen": [_said(pair.chosen)], "rejected": [_said(pair.rejected)]}
    row = {"prompt": list(pair.prompt), **answers, "prompt_id": pair.prompt_id}
    export.add(source, row | _with(pair.comment))


def _versions(turns: Iterable[KeptTurn]) -> Iterator[list[KeptTurn]]:
    """The complete answers to one question at one place of a chat, the oldest first."""
    beside = defaultdict(list)
    for turn in turns:
        if turn.is_answered:
            beside[turn.conversation, turn.parent, " ".join(turn.question.split())].append(turn)
    yield from beside.values()


def thumbs(turns: Sequence[KeptTurn]) -> Export:
    """`prompt`, `completion` and `label`, true for a thumb up: an answer alone, without a better one."""
    export, before = Export(), _Before(turns)
    for turn in turns:
        if turn.is_answered and turn.thumb is not None:
            row = {"prompt": before.prompt(turn), "completion": [_said(turn.answer)], "label": turn.is_good}
            source = THUMBS_UP if turn.is_good else THUMBS_DOWN
            export.add(source, row | {"prompt_id": turn.id, **_with(turn.comment)})
    return export


def chats(turns: Sequence[KeptTurn], test: Sequence[Chat]) -> Export:
    """A chat for each answer with a thumb up or a correction, with all that came before.

    Earlier answers without a thumb up are context that bears no loss. A chat that another one continues is
    not exported on its own, unless that one asks what `test` asks, and will be left out.
    """
    export, before = Export(), _Before(turns)
    good = [turn for turn in turns if turn.is_good or turn.corrected]
    rows = [_chat_up_to(turn, before) for turn in good]
    places = tested([list(_asked_in(row)) for row in rows], test)
    kept = [turn for turn, place in zip(good, places, strict=True) if place is None]
    continued = {earlier.id for turn in kept for earlier in before.path(turn)}
    for turn, row in zip(good, rows, strict=True):
        if turn.id in continued and not turn.corrected:
            export.made[THUMBS_UP] += 1  # in the row of a later one
        else:
            export.add("corrected answers" if turn.corrected else THUMBS_UP, row)
    return export


def _chat_up_to(turn: KeptTurn, before: "_Before") -> Row:
    messages = [*before.prompt(turn), _said(turn.corrected or turn.answer)]
    return {"messages": messages, "prompt_id": turn.id, **_with(turn.comment)}


class _Before:
    """What came before each turn."""

    def __init__(self, turns: Iterable[KeptTurn]) -> None:
        self._turns = {turn.id: turn for turn in turns}

    def path(self, turn: KeptTurn) -> list[KeptTurn]:
        """The answered turns before this one, the first question first."""
        found: list[KeptTurn] = []
        parent = turn.parent
        while parent in self._turns:
            found.append(self._turns[parent])
            parent = found[-1].parent
        return [one for one in reversed(found) if one.answer.strip()]

    def prompt(self, turn: KeptTurn) -> list[Message]:
        """Ends with the turn's question; an answer without a thumb up bears no loss."""
        messages: list[Message] = [{"role": "system", "content": turn.system}] if turn.system else []
        for earlier in self.path(turn):
            loss = {} if earlier.is_good else {"weight": 0}
            messages += [{"role": "user", "content": earlier.question}, _said(earlier.answer) | loss]
        return [*messages, {"role": "user", "content": turn.question}]


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _with(comment: str) -> dict[str, str]:
    return {"comment": comment.strip()} if comment.strip() else {}


def _first_of_each(rows: Iterable[Row]) -> Iterator[bool]:
    seen: set[str] = set()
    for row in rows:
        content = json.dumps([row.get(name) for name in (*MESSAGES, "label")])
        yield content not in seen
        seen.add(content)


def _asked_in(row: Row) -> Iterator[str]:
    """What is asked of each answer that is learned."""
    messages = row.get("messages") or [*row["prompt"], *(row.get("chosen") or row["completion"])]
    for end, message in enumerate(messages):
        if bears_loss(message):
            yield from texts_asked(messages[:end])


def without_personal(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The rows with placeholders, and how much of each kind was replaced."""
    counts: Counter[str] = Counter()
    changed: list[Row] = []
    for row in rows:
        texts = [message["content"] for name in MESSAGES for message in row.get(name, ())]
        replaced = without_personal_data([*texts, row.get("comment", "")])
        counts += replaced.counts
        new = iter(replaced.texts)
        messages = {
            name: [{**message, "content": next(new)} for message in row[name]]
            for name in MESSAGES
            if name in row
        }
        changed.append({**row, **messages, **_with(next(new))})
    return changed, counts
