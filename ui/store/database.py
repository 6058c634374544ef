"""The SQLite file of the conversations: its tables, and short transactions on it.

The turns of a conversation are a tree: `parent` is the turn before, null for a first question. Turns with one
parent are versions of each other, and `replaced` marks those that the page does not show.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

OWNER_ALONE = 0o600
LOCK_SECONDS = 10.0  # how long one writer waits for another
SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, system TEXT NOT NULL,
    temperature REAL NOT NULL, max_tokens INTEGER NOT NULL, changed REAL NOT NULL,
    asked REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    question TEXT NOT NULL, model TEXT NOT NULL, model_hash TEXT NOT NULL, data_hash TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'running', error TEXT NOT NULL DEFAULT '',
    first_token_seconds REAL, seconds REAL, thumb INTEGER, comment TEXT NOT NULL DEFAULT '',
    replaced INTEGER NOT NULL DEFAULT 0, parent TEXT, correction TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS turns_of ON turns (conversation, number);
"""
# A file of the first release has none of these columns; there, what was replaced counts as a version of the
# turn that follows the same visible one.
ASKED = """
ALTER TABLE conversations ADD COLUMN asked REAL NOT NULL DEFAULT 0;
UPDATE conversations SET asked = changed;
"""
PARENT = """
ALTER TABLE turns ADD COLUMN parent TEXT;
UPDATE turns SET parent = (SELECT id FROM turns AS earlier WHERE earlier.conversation = turns.conversation
    AND NOT earlier.replaced AND earlier.number < turns.number ORDER BY number DESC LIMIT 1);
"""
CORRECTION = "ALTER TABLE turns ADD COLUMN correction TEXT NOT NULL DEFAULT ''"
ADDED = (("conversations", "asked", ASKED), ("turns", "parent", PARENT), ("turns", "correction", CORRECTION))
# The turn ?1 with all before it, and of what follows the newest: the visible turns of conversation ?2.
SHOW = """
WITH RECURSIVE
    before (id, parent) AS (SELECT id, parent FROM turns WHERE id = ?1
        UNION ALL SELECT turns.id, turns.parent FROM turns JOIN before ON turns.id = before.parent),
    after (id) AS (SELECT ?1 UNION ALL
        SELECT (SELECT turns.id FROM turns WHERE parent = after.id ORDER BY number DESC LIMIT 1)
        FROM after WHERE after.id IS NOT NULL)
UPDATE turns SET replaced = id NOT IN (
    SELECT id FROM before UNION SELECT id FROM after WHERE id IS NOT NULL) WHERE conversation = ?2
"""


def create_tables(path: Path) -> None:
    """Create the file, for its owner alone, or add to an older one what it lacks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=OWNER_ALONE)
    with suppress(PermissionError):  # it is another person's
        path.chmod(OWNER_ALONE)
    with transaction(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        for table, column, script in ADDED:
            names = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            if column not in names:
                database.executescript(script)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one short transaction; threads never share one."""
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.create_function("casefold", 1, str.casefold, deterministic=True)
        with database:
            yield database


def update(
    database: sqlite3.Connection, table: str, columns: Mapping[str, Any], where: str, *values: str
) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    database.execute(f"UPDATE {table} SET {names} WHERE {where}", (*columns.values(), *values))  # noqa: S608 - names from these modules
