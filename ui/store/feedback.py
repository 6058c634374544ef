"""What people said about a run's answers: thumbs, comments and corrections of all chats, and votes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.core.jsonl import BadRows, RowError, lines_of, parse_object
from phi3flow.core.sides import BASE, TUNED
from ui.store.database import create_tables, transaction
from ui.store.records import COMPLETE

TURNS = """
SELECT turns.id, conversation, parent, owner, system, question, answer, status, thumb, comment, correction
FROM turns JOIN conversations ON conversations.id = conversation WHERE kind = 'chat' ORDER BY number
"""
VOTES = (TUNED.name, BASE.name, "tie", "both_bad")


class KeptTurn(NamedTuple):
    """A question of a chat with its answer and what was said about it; `parent` is the turn before."""

    id: str
    conversation: str
    parent: str | None
    owner: str
    system: str
    question: str
    answer: str
    status: str
    thumb: int | None
    comment: str
    correction: str

    @property
    def is_answered(self) -> bool:
        return self.status == COMPLETE and bool(self.answer.strip())

    @property
    def is_good(self) -> bool:
        return self.is_answered and self.thumb == 1

    @property
    def corrected(self) -> str:
        """The answer that the person wanted; empty for an answer with a thumb up."""
        return "" if self.thumb == 1 else self.correction.strip()


class Vote(NamedTuple):
    """A vote of the arena. `chosen` and `rejected` are None for a tie and for both bad."""

    ballot: str
    vote: str
    prompt: list[dict[str, str]]
    chosen: str | None
    rejected: str | None


def kept_turns(database: Path) -> list[KeptTurn]:
    """All turns of all people's chats, in the order in which they were asked; none without a file."""
    if not database.exists():
        return []
    create_tables(database)  # what an older file lacks
    with transaction(database) as opened:
        return [KeptTurn(*row) for row in opened.execute(TURNS)]


def read_votes(path: Path) -> list[Vote]:
    """The votes, as `append_vote` wrote them. Raises BadInput with every `file:line: field: what`."""
    if not path.exists():
        return []
    bad = BadRows()
    votes = list(_votes(path, bad))
    bad.require_none()
    return votes


def _votes(path: Path, bad: BadRows) -> Iterator[Vote]:
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            yield _vote(parse_object(line))
        except RowError as error:
            bad.add(str(path), number, error)


def _vote(row: Mapping[str, Any]) -> Vote:
    if row.get("vote") not in VOTES:
        raise RowError("vote", f"must be one of {', '.join(VOTES)}")
    prompt = row.get("prompt")
    if not isinstance(prompt, list) or not all(map(_is_message, prompt)):
        raise RowError("prompt", "must be a list of messages")
    decided = row["vote"] in (TUNED.name, BASE.name)
    chosen, rejected = (_answer(row, name) if decided else None for name in ("chosen", "rejected"))
    return Vote(str(row.get("id", "")), row["vote"], prompt, chosen, rejected)


def _answer(row: Mapping[str, Any], name: str) -> str:
    given = row.get(name)
    if not isinstance(given, list) or len(given) != 1 or not _is_message(given[0]):
        raise RowError(name, "must be a list of one message")
    return str(given[0]["content"])


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))
