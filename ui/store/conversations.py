"""Conversations in one small SQLite file, which several threads and tabs read and write at once.

Regenerate and Edit add a version beside the turn, and the page shows one version at a time. Only deleting a
conversation deletes text and ratings.
"""

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from phi3flow.phi3_contract import Sampling
from ui.store.database import SHOW, create_tables, transaction, update
from ui.store.records import CUT, RUNNING, Conversation, Model, Turn

TITLE_CHARACTERS = 60
LISTED = 30  # conversations in the sidebar
CONVERSATION_COLUMNS = ", ".join(Conversation._fields)
TURN_COLUMNS = ", ".join(f"turns.{name}" for name in Turn._fields)


class Conversations:
    """The conversations of one `owner`: the person who logged in, empty on loopback."""

    def __init__(self, path: Path, owner: str = "") -> None:
        self._path, self._owner = path, owner

    def prepare(self) -> None:
        """Create the file and mark answers cut off that an earlier server left running. Once per server."""
        create_tables(self._path)
        with transaction(self._path) as database:
            stopped = {"status": CUT, "error": "The chat page was stopped."}
            update(database, "turns", stopped, "status = ?", RUNNING)

    def create(self, question: str, system: str, sampling: Sampling, kind: str = "chat") -> Conversation:
        now, settings = time.time(), (system, sampling.temperature, sampling.max_tokens)
        made = Conversation(uuid4().hex, kind, title_of(question), *settings, now, now)
        places = ", ".join("?" * (len(made) + 1))
        query = f"INSERT INTO conversations ({CONVERSATION_COLUMNS}, owner) VALUES ({places})"  # noqa: S608 - column names from this file
        self._all(query, *made, self._owner)
        return made

    def get(self, conversation: str) -> Conversation | None:
        return next(iter(self._conversations("id = ?", conversation)), None)

    def search(self, words: str = "") -> list[Conversation]:
        """The chats with `words` in their title, a question or an answer; ignores letter case.

        The one that was asked last comes first.
        """
        return self._conversations(
            """kind = 'chat' AND (instr(casefold(title), ?1) OR EXISTS (
                SELECT 1 FROM turns WHERE conversation = conversations.id AND NOT replaced
                AND (instr(casefold(question), ?1) OR instr(casefold(answer), ?1))))""",
            words.casefold(),
        )

    def rename(self, conversation: str, title: str) -> None:
        self._change(conversation, title=title.strip()[:TITLE_CHARACTERS] or "Untitled")

    def set_sampling(self, conversation: str, system: str, sampling: Sampling) -> None:
        self._change(
            conversation, system=system, temperature=sampling.temperature, max_tokens=sampling.max_tokens
        )

    def delete(self, conversation: str) -> None:
        self._all("DELETE FROM conversations WHERE id = ? AND owner = ?", conversation, self._owner)

    def turns(self, conversation: str) -> list[Turn]:
        """The turns that are shown, the first question first."""
        return self._turns("turns.conversation = ? AND NOT replaced", conversation)

    def turn(self, turn: str) -> Turn | None:
        return next(iter(self._turns("turns.id = ?", turn)), None)

    def versions(self, conversation: str) -> dict[str, list[str]]:
        """Of each turn, by its id: the ids of the turns that follow the same one, the oldest first."""
        rows = self._all("SELECT id, parent FROM turns WHERE conversation = ? ORDER BY number", conversation)
        beside: dict[str | None, list[str]] = {}
        for turn, parent in rows:
            beside.setdefault(parent, []).append(turn)
        return {turn: beside[parent] for turn, parent in rows}

    def add(self, conversation: str, question: str, model: Model, *, instead_of: str | None = None) -> Turn:
        """Add a turn at the end, or a version of the turn `instead_of`, and show it.

        Raises LookupError if the conversation is not there or is another person's.
        """
        turn = uuid4().hex
        before = (
            "SELECT parent FROM turns WHERE id = ?1"
            if instead_of
            else "SELECT id FROM turns WHERE conversation = ?2 AND NOT replaced ORDER BY number DESC LIMIT 1"
        )
        with transaction(self._path) as database:
            database.execute(
                f"""INSERT INTO turns (id, conversation, question, model, model_hash, data_hash, parent)
                SELECT ?4, id, ?5, ?6, ?7, ?8, ({before}) FROM conversations WHERE id = ?2 AND owner = ?3""",  # noqa: S608 - from this file
                (instead_of, conversation, self._owner, turn, question, *model),
            )
            database.execute(SHOW, (turn, conversation))
        self._change(conversation, asked=time.time())
        made = self.turn(turn)
        if made is None:
            raise LookupError("the conversation was deleted")
        return made

    def show(self, turn: str) -> None:
        """Show this version, and the newest of what follows it. Does nothing if it was deleted."""
        if found := self.turn(turn):
            with transaction(self._path) as database:
                database.execute(SHOW, (turn, found.conversation))
            self._change(found.conversation)

    def save(self, turn: str, **columns: str | float | None) -> None:
        """Write some columns of a turn; does nothing if the turn was deleted."""
        with transaction(self._path) as database:
            update(database, "turns", columns, "id = ?", turn)
            changed, of_turn = {"changed": time.time()}, "id = (SELECT conversation FROM turns WHERE id = ?)"
            update(database, "conversations", changed, of_turn, turn)

    def _change(self, conversation: str, **columns: Any) -> None:
        columns["changed"] = time.time()
        with transaction(self._path) as database:
            update(database, "conversations", columns, "id = ? AND owner = ?", conversation, self._owner)

    def _conversations(self, condition: str, *values: str) -> list[Conversation]:
        query = f"""SELECT {CONVERSATION_COLUMNS} FROM conversations
            WHERE ({condition}) AND owner = ? ORDER BY asked DESC LIMIT {LISTED}"""  # noqa: S608 - conditions from this file
        return [Conversation(*row) for row in self._all(query, *values, self._owner)]

    def _turns(self, condition: str, *values: str) -> list[Turn]:
        query = f"""SELECT {TURN_COLUMNS} FROM turns JOIN conversations ON conversations.id = conversation
            WHERE {condition} AND owner = ? ORDER BY number"""  # noqa: S608 - conditions from this file
        return [Turn(*row) for row in self._all(query, *values, self._owner)]

    def _all(self, statement: str, *values: Any) -> list[Any]:
        """The rows of one statement, in a transaction of its own."""
        with transaction(self._path) as database:
            return database.execute(statement, values).fetchall()


def title_of(question: str) -> str:
    """The start of a question in one line, as the title of the conversation that it opens."""
    words = " ".join(question.split())
    return words if len(words) <= TITLE_CHARACTERS else f"{words[: TITLE_CHARACTERS - 1].rstrip()}…"
