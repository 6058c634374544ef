"""One line of JSON for each request: what was asked and answered, and never a header, a query or a body.

Keys, tokens and signatures travel in those three, so the log cannot hold one.
"""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """`route` is the template that matched; empty for a route or host that is not emulated."""

    number: int
    time: str
    plane: str
    method: str
    host: str
    path: str
    route: str
    api_version: str
    status: int
    milliseconds: int
    fault: str = ""

    @property
    def unknown(self) -> bool:
        return not self.route


class RequestLog:
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._stream = path.open("a", encoding="utf-8", buffering=1)
        self.entries: list[Entry] = []

    def add(self, **values: object) -> None:
        with self._lock:
            entry = Entry(number=len(self.entries) + 1, **values)  # type: ignore[arg-type]
            self.entries.append(entry)
            self._stream.write(json.dumps(asdict(entry)) + "\n")

    def close(self) -> None:
        with self._lock:
            self._stream.close()
