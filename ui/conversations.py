"""Conversations in one small SQLite file, which several threads and tabs read and write at once.

Regenerate and Edit hide the turns they replace. Only deleting a conversation deletes text and ratings.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from phi3flow.phi3_contract import Sampling

RUNNING, COMPLETE, CUT, STOPPED, FAILED = "running", "complete", "cut", "stopped", "failed"
TITLE_CHARACTERS = 60
LISTED = 30  # conversations in the sidebar
LOCK_SECONDS = 10.0  # how long one writer waits for another
SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, system TEXT NOT NULL,
    temperature REAL NOT NULL, max_tokens INTEGER NOT NULL, changed REAL NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    question TEXT NOT NULL, model TEXT NOT NULL, model_hash TEXT NOT NULL, data_hash TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'running', error TEXT NOT NULL DEFAULT '',
    first_token_seconds REAL, seconds REAL, thumb INTEGER, comment TEXT NOT NULL DEFAULT '',
    replaced INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS turns_of ON turns (conversation, number);
"""


class Conversation(NamedTuple):
    """The settings of every question in it. `kind` is chat or arena; `changed` is a Unix time."""

    id: str
    kind: str
    title: str
    system: str
    temperature: float
    max_tokens: int
    changed: float

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.max_tokens)


class Model(NamedTuple):
    """`base` or `tuned`, the content hash of its folder and that of the data it was tuned on."""

    name: str
    model_hash: str = ""
    data_hash: str = ""


class Turn(NamedTuple):
    """A question and its answer so far. `error` is one sentence on why the answer ended early.

    `thumb` is 1 for up, 0 for down, None for neither. Times are seconds since the question.
    """

    id: str
    conversation: str
    question: str
    model: str
    model_hash: str
    data_hash: str
    answer: str
    status: str
    error: str
    first_token_seconds: float | None
    seconds: float | None
    thumb: int | None
    comment: str


CONVERSATION_COLUMNS = ", ".join(Conversation._fields)
TURN_COLUMNS = ", ".join(f"turns.{name}" for name in Turn._fields)


class Conversations:
    """The conversations of one `owner`: the person who logged in, empty on loopback."""

    def __init__(self, path: Path, owner: str = "") -> None:
        self._path, self._owner = path, owner

    def prepare(self) -> None:
        """Create the file and mark answers cut off that an earlier server left running. Once per server."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(SCHEMA)
            stopped = {"status": CUT, "error": "The chat page was stopped."}
            _update(database, "turns", stopped, "status = ?", RUNNING)

    def create(self, question: str, system: str, sampling: Sampling, kind: str = "chat") -> Conversation:
        title = " ".join(question.split())[:TITLE_CHARACTERS]
        made = Conversation(
            uuid4().hex, kind, title, system, sampling.temperature, sampling.max_tokens, time.time()
        )
        places = ", ".join("?" * (len(made) + 1))
        query = f"INSERT INTO conversations ({CONVERSATION_COLUMNS}, owner) VALUES ({places})"  # noqa: S608 - column names from this file
        self._all(query, *made, self._owner)
        return made

    def get(self, conversation: str) -> Conversation | None:
        return next(iter(self._conversations("id = ?", conversation)), None)

    def search(self, words: str = "") -> list[Conversation]:
        """The latest chats with `words` in their title, a question or an answer; ignores letter case."""
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
        return self._turns("turns.conversation = ? AND NOT replaced", conversation)

    def turn(self, turn: str) -> Turn | None:
        return next(iter(self._turns("turns.id = ?", turn)), None)

    def add(self, conversation: str, question: str, model: Model, *, instead_of: str | None = None) -> Turn:
        """Add a turn at the end. Hides the turn `instead_of` and all after it.

        Raises LookupError if the conversation is not there or is another person's.
        """
        turn = uuid4().hex
        with self._open() as database:
            if instead_of:
                database.execute(
                    """UPDATE turns SET replaced = 1 WHERE conversation = ?
                    AND number >= (SELECT number FROM turns WHERE id = ?)""",
                    (conversation, instead_of),
                )
            database.execute(
                """INSERT INTO turns (id, conversation, question, model, model_hash, data_hash)
                SELECT ?, id, ?, ?, ?, ? FROM conversations WHERE id = ? AND owner = ?""",
                (turn, question, *model, conversation, self._owner),
            )
        self._change(conversation)
        made = self.turn(turn)
        if made is None:
            raise LookupError("the conversation was deleted")
        return made

    def save(self, turn: str, **columns: str | float | None) -> None:
        """Write some columns of a turn; does nothing if the turn was deleted."""
        with self._open() as database:
            _update(database, "turns", columns, "id = ?", turn)
            changed, of_turn = {"changed": time.time()}, "id = (SELECT conversation FROM turns WHERE id = ?)"
            _update(database, "conversations", changed, of_turn, turn)

    def _change(self, conversation: str, **columns: Any) -> None:
        columns["changed"] = time.time()
        with self._open() as database:
            _update(database, "conversations", columns, "id = ? AND owner = ?", conversation, self._owner)

    def _conversations(self, condition: str, *values: str) -> list[Conversation]:
        query = f"""SELECT {CONVERSATION_COLUMNS} FROM conversations
            WHERE ({condition}) AND owner = ? ORDER BY changed DESC LIMIT {LISTED}"""  # noqa: S608 - conditions from this file
        return [Conversation(*row) for row in self._all(query, *values, self._owner)]

    def _turns(self, condition: str, value: str) -> list[Turn]:
        query = f"""SELECT {TURN_COLUMNS} FROM turns JOIN conversations ON conversations.id = conversation
            WHERE {condition} AND owner = ? ORDER BY number"""  # noqa: S608 - conditions from this file
        return [Turn(*row) for row in self._all(query, value, self._owner)]

    def _all(self, statement: str, *values: Any) -> list[Any]:
        """The rows of one statement, in a transaction of its own."""
        with self._open() as database:
            return database.execute(statement, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one short transaction; threads never share one."""
        with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS)) as database:
            database.execute("PRAGMA foreign_keys = ON")
            database.create_function("casefold", 1, str.casefold, deterministic=True)
            with database:
                yield database


def _update(
    database: sqlite3.Connection, table: str, columns: Mapping[str, Any], where: str, *values: str
) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    database.execute(f"UPDATE {table} SET {names} WHERE {where}", (*columns.values(), *values))  # noqa: S608 - names from this file
