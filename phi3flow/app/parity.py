"""One flow behind Prompt flow and behind Agent Framework: the same requests, and what each answers."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import requests

from agents.flow_file import Flow, read_flow
from phi3flow.app.flow_hosts import HOSTS
from phi3flow.app.services import served_flow, with_flow_key
from phi3flow.core.service_stack import LOOPBACK, Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES

SECONDS = 600.0  # for one answer; the flow's endpoint has a deadline of its own
AGAIN = 4  # times that Prompt flow is asked where the answers differ
STREAM, JSON = "text/event-stream", "application/json"
EVENT = "data: "
MEASURED = re.compile(r'"seconds": ?[0-9.e-]+')  # what no two runs have in common
WRONG: tuple[Any, ...] = (None, "", 17, [], {}, "\u202eG\u00f6\u00dfe \U0001f600")


class Asked(NamedTuple):
    """A request to a flow: a row of the file, or an edge case with its name."""

    name: str
    body: bytes
    accept: str = JSON
    method: str = "POST"
    path: str = "/score"

    def shown(self) -> str:
        return self.body.decode("utf-8", "backslashreplace")


class Told(NamedTuple):
    """An answer; `ended` is false where the connection broke before its end."""

    status: int
    text: str
    ended: bool

    def shown(self) -> str:
        return f"{self.status}{'' if self.ended else ' (cut off)'} {self.text.strip()}"


class Pair(NamedTuple):
    asked: Asked
    promptflow: Told
    agents: Told

    @property
    def equal(self) -> bool:
        return _comparable(self.promptflow) == _comparable(self.agents)


@dataclass
class Parity:
    """The pairs of one flow: those of the file's rows, and those of the edge cases."""

    flow: str
    rows: list[Pair] = field(default_factory=list)
    edges: list[Pair] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def differing(self) -> list[Pair]:
        return [pair for pair in (*self.rows, *self.edges) if not pair.equal]


def compare_hosts(
    flow: Path, twin: Path, rows: Sequence[Mapping[str, Any]], settings: Settings, logs: Path, *, workers: int
) -> Parity:
    """Ask `flow` behind Prompt flow and `twin` behind Agent Framework every row, and edge cases of inputs.

    Both are resolved; most often they are one folder. `workers` requests at a time. Needs a Prompt flow home
    that was entered. Raises what `served_flow` and Stack raise.
    """
    found, began = Parity(flow.name), time.monotonic()
    with _both({HOSTS[0]: flow, HOSTS[1]: twin}, settings, logs) as hosts:
        found.rows = _pairs(hosts, [_row(number, row) for number, row in enumerate(rows, 1)], workers)
        found.edges = _pairs(hosts, list(edge_cases(read_flow(flow), rows[0] if rows else {})), workers)
    found.seconds = time.monotonic() - began
    return found


def edge_cases(flow: Flow, row: Mapping[str, Any]) -> Iterator[Asked]:
    """What goes wrong, and what people seldom send: for each input, for the body, and for the routes."""
    for name in flow.inputs:
        without = {key: value for key, value in row.items() if key != name}
        yield Asked(f"without {name}", _json(without))
        for value in WRONG:
            yield Asked(f"{name} is {json.dumps(value)}", _json({**row, name: value}))
    yield Asked("a field that the flow does not know", _json({**row, "nobody": {"knows": 1}}))
    for body in (b"", b"{", b"[]", b"null", b"\xff"):
        yield Asked(f"the body {body!r}", body)
    for accept in (STREAM, f"{STREAM}, {JSON}", "*/*", "text/plain"):
        yield Asked(f"accepts {accept}", _json(row), accept)
    for method, path in (
        ("GET", "/score"),
        ("GET", "/health"),
        ("GET", "/swagger.json"),
        ("GET", "/nothing"),
    ):
        yield Asked(f"{method} {path}", b"", JSON, method, path)


class _Host(NamedTuple):
    port: int
    key: str

    def tell(self, asked: Asked) -> Told:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": JSON, "Accept": asked.accept}
        url = f"http://{LOOPBACK}:{self.port}{asked.path}"
        with requests.Session() as session:
            session.trust_env = False
            options: dict[str, Any] = {"data": asked.body, "headers": headers, "timeout": SECONDS}
            answer = session.request(asked.method, url, stream=True, **options)
            body, ended = _read(answer)
        return Told(answer.status_code, body.decode("utf-8", "backslashreplace"), ended)


def _read(answer: requests.Response) -> tuple[bytes, bool]:
    received = b""
    try:
        for part in answer.iter_content(1024):
            received += part
    except requests.RequestException:
        return received, False
    return received, True


@contextmanager
def _both(flows: Mapping[str, Path], settings: Settings, logs: Path) -> Iterator[dict[str, _Host]]:
    """Serve a flow behind each host; they take the ports of the two sides' flows."""
    each = [
        (side, with_flow_key(settings.model_copy(update={"flow_host": name})))
        for side, name in zip(SIDES, HOSTS, strict=True)
    ]
    services = [
        served_flow(flows[own.flow_host], side, own, logs / f"{own.flow_host}.log") for side, own in each
    ]
    with Stack(*services):
        yield {own.flow_host: _Host(getattr(own, side.flow_port), own.flow_key) for side, own in each}


def _pairs(hosts: Mapping[str, _Host], asked: Sequence[Asked], workers: int) -> list[Pair]:
    with ThreadPoolExecutor(workers) as pool:
        told = [list(pool.map(hosts[name].tell, asked)) for name in HOSTS]
        pairs = [Pair(*each) for each in zip(asked, *told, strict=True)]
        return list(pool.map(lambda pair: _once_more(hosts["promptflow"], pair), pairs))


def _once_more(promptflow: _Host, pair: Pair) -> Pair:
    """Where the two differ, Prompt flow is asked again: of two nodes that fail at once it names either."""
    for _ in range(0 if pair.equal else AGAIN):
        again = pair._replace(promptflow=promptflow.tell(pair.asked))
        if again.equal:
            return again
    return pair


def _comparable(told: Told) -> Told:
    """Without what no two runs have in common: measured times, and where an endpoint cuts its stream."""
    return told._replace(text=joined_events(MEASURED.sub('"seconds":0', told.text)))


def joined_events(text: str) -> str:
    """A stream with neighbouring pieces of one output in one event; any other text as it is."""
    joined: list[dict[str, Any]] = []
    for line in filter(None, text.split("\n\n")):
        try:
            event = json.loads(line.removeprefix(EVENT)) if line.startswith(EVENT) else None
        except ValueError:
            event = None
        if not isinstance(event, dict):
            return text
        if joined and _is_piece(event) and event.keys() == joined[-1].keys() and _is_piece(joined[-1]):
            (name,) = event
            joined[-1][name] += event[name]
        else:
            joined.append(event)
    return json.dumps(joined) if joined else text


def _is_piece(event: Mapping[str, Any]) -> bool:
    return len(event) == 1 and all(isinstance(value, str) for value in event.values())


def _row(number: int, row: Mapping[str, Any]) -> Asked:
    return Asked(f"line {number}", _json(row))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
