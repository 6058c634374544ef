"""What exists, in one SQLite file, so that the emulated cloud outlives the emulator."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azure_emulator.front.wire import Document, azure_error, not_found

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS documents (collection TEXT, key TEXT, body TEXT, "
    "PRIMARY KEY (collection, key))"
)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


class Store:
    """Documents by collection and key; reading gives a copy, and `put` is what changes something.

    Resources are one such collection, keyed by their ARM id in lower case. `lock` is held around every
    read-modify-write; the methods themselves are safe in any thread.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")  # survives a killed process; not a power cut
        self._database.execute(SCHEMA)

    def close(self) -> None:
        with self.lock:
            self._database.close()

    def read(self, collection: str, key: str) -> Document | None:
        with self.lock:
            row = self._database.execute(
                "SELECT body FROM documents WHERE collection=? AND key=?", (collection, key)
            ).fetchone()
        return json.loads(row[0]) if row else None

    def write(self, collection: str, key: str, body: Document) -> None:
        with self.lock:
            self._database.execute(
                "INSERT INTO documents VALUES (?,?,?) ON CONFLICT DO UPDATE SET body=excluded.body",
                (collection, key, json.dumps(body)),
            )

    def remove(self, collection: str, key: str) -> None:
        with self.lock:
            self._database.execute("DELETE FROM documents WHERE collection=? AND key=?", (collection, key))

    def keys(self, collection: str, prefix: str = "") -> list[str]:
        """In the order in which they were first written."""
        with self.lock:
            rows = self._database.execute(
                "SELECT key FROM documents WHERE collection=? AND substr(key,1,?)=? ORDER BY rowid",
                (collection, len(prefix), prefix),
            ).fetchall()
        return [key for (key,) in rows]

    def get(self, resource_id: str) -> Document | None:
        return self.read("resources", resource_id.lower())

    def require(self, resource_id: str) -> Document:
        """Raise ARM's ResourceNotFound where there is none."""
        found = self.get(resource_id)
        if found is None:
            raise not_found(resource_id)
        return found

    def put(self, resource: Document) -> None:
        self.write("resources", resource["id"].lower(), resource)

    def delete(self, resource_id: str) -> None:
        """The resource and everything below it."""
        for key in [resource_id.lower(), *self.keys("resources", resource_id.lower() + "/")]:
            self.remove("resources", key)

    def below(self, resource_id: str, *, kind: str = "") -> list[Document]:
        """Every resource under an id, at any depth; `kind` is an ARM type without the provider's case."""
        found = [self.get(key) for key in self.keys("resources", resource_id.lower().rstrip("/") + "/")]
        return [item for item in found if item and (not kind or item["type"].lower() == kind.lower())]

    @contextmanager
    def changing(self, resource_id: str) -> Iterator[Document]:
        """The resource's properties, to be changed in place."""
        with self.lock:
            resource = self.require(resource_id)
            yield resource["properties"]
            self.put(resource)


def resource_document(
    resource_id: str, kind: str, body: Document, old: Document | None, **properties: Any
) -> Document:
    """What ARM stores for a PUT: the body, its own properties over it, and who made it when."""
    created = (old or {}).get("systemData", {}).get("createdAt") or now()
    return {
        **{
            name: body[name]
            for name in body
            if name not in {"id", "name", "type", "systemData", "properties"}
        },
        "id": resource_id,
        "name": resource_id.rsplit("/", 1)[1],
        "type": kind,
        "properties": {**(body.get("properties") or {}), **properties},
        "systemData": {"createdAt": created, "createdByType": "User", "lastModifiedAt": now()},
    }


def require_settled(resource: Document | None) -> None:
    """Azure ML answers 409 to a write while another one on the same resource is under way."""
    state = (resource or {}).get("properties", {}).get("provisioningState")
    if state in {"Creating", "Updating", "Deleting"}:
        raise azure_error(409, "Conflict", f"Already running method on this resource: it is {state}.")
