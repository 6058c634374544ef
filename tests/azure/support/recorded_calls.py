"""The calls in `tests/azure/recorded`: read, sent to an emulator, and compared with what Azure answered."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "recorded"
DEVIATIONS, DOCUMENTED = FOLDER / "deviations.json", FOLDER / "documented.json"
POLLING = ("Azure-AsyncOperation", "Location", "Retry-After", "x-ms-async-operation-timeout")
STEP = re.compile(r'\["([^"]+)"\]|([^.\[\]]+)|(\[\])')
PLACEHOLDER = re.compile(r"\{(\w+)\}")
ANY = {"id": r"[\w:-]+", "any": r".+"}
Names = Mapping[str, str]


@dataclass(frozen=True)
class Call:
    """One request as it was recorded, and the facts of its answer.

    `properties` lists the names within each object; `values` holds those that a client may depend on.
    """

    name: str
    method: str
    path: str
    status: int
    api_version: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    send: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, list[str]] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    additional: list[str] | None = None
    error_code: str = ""
    blob: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def facts(self) -> int:
        """How much of the answer is compared: the status, and each name, value and header."""
        names = sum(map(len, (self.properties or {}).values()))
        values = len(self.values) + sum(map(len, self.rows)) + (self.additional is not None)
        return 1 + names + values + len(self.headers) + bool(self.error_code)

    @property
    def polls(self) -> bool:
        return self.path == "{operation}"

    @property
    def ends(self) -> bool:
        return self.values.get("status") in {"Succeeded", "Failed"}


@dataclass(frozen=True)
class Recording:
    """`complete`: the source shows the whole answer; an example of a specification may leave things out."""

    name: str
    kind: str
    repository: str
    path: str
    commit: str
    complete: bool
    given: list[str]
    calls: list[Call]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


def load() -> list[Recording]:
    return [_read(path) for path in sorted(FOLDER.glob("*.json")) if path not in {DEVIATIONS, DOCUMENTED}]


def _read(path: Path) -> Recording:
    found = json.loads(path.read_text())
    source = found["source"]
    return Recording(
        path.stem,
        source["kind"],
        source["repository"],
        source["path"],
        source["commit"],
        found.get("compare") != "subset",
        found.get("given", []),
        [Call(**call) for call in found["interactions"]],
    )


def differences(call: Call, answer: Answer, names: Names, *, complete: bool) -> Iterator[str]:
    """Where the answer differs from the recorded one; each a word and a place, without the values."""
    if answer.status != call.status:
        yield f"status: {call.status} recorded, {answer.status} answered"
    yield from _headers(call, answer, names, complete=complete)
    for parent, recorded in (call.properties or {}).items():
        for shown in _objects(answer.body, parent):
            yield from _names(parent, set(recorded), shown, complete=complete)
    for place, value in call.values.items():
        if not any(equal(value, shown, names) for shown in _objects(answer.body, place)):
            yield f"value: {place}"
    for number, row in enumerate(call.rows):
        shown = _objects(answer.body, "value[]")
        if not any(all(equal(row[at], _first(one, at), names) for at in row) for one in shown):
            yield f"row {number}: {next(iter(row.values()))}"
    if call.additional is not None:
        types = [one.get("type") for one in _objects(answer.body, "error.additionalInfo[]")]
        if types != call.additional:
            yield "value: error.additionalInfo[].type"


def _headers(call: Call, answer: Answer, names: Names, *, complete: bool) -> Iterator[str]:
    for name in POLLING:
        recorded, shown = call.headers.get(name), answer.headers.get(name)
        if shown and name == "Location" and "{" not in str(recorded):
            shown = shown.partition("?")[0]
        if recorded and not shown:
            yield f"missing header: {name}"
        elif shown and not recorded and complete:
            yield f"extra header: {name}"
        elif recorded and not equal(recorded, _path(str(shown)), names):
            yield f"value of header: {name}"
    if call.error_code and answer.headers.get("x-ms-error-code") != call.error_code:
        yield "value of header: x-ms-error-code"


def _path(address: str) -> str:
    return address.partition("?")[0].removeprefix("https://management.azure.com")


def _names(parent: str, recorded: set[str], shown: Any, *, complete: bool) -> Iterator[str]:
    there = set(shown) if isinstance(shown, dict) else set()
    where = f"{parent}." if parent else ""
    yield from (f"missing: {where}{name}" for name in sorted(recorded - there))
    if complete:
        yield from (f"extra: {where}{name}" for name in sorted(there - recorded))


def _objects(body: Any, place: str) -> list[Any]:
    """What lies at a place such as `value[].name` or `properties["a.b"]`; nothing where it is missing."""
    found = [body]
    for quoted, plain, each in STEP.findall(place):
        if each:
            found = [item for one in found if isinstance(one, list) for item in one]
        else:
            name = quoted or plain
            found = [one[name] for one in found if isinstance(one, dict) and name in one]
    return found


def _first(body: Any, place: str) -> Any:
    return next(iter(_objects(body, place)), None)


def equal(recorded: Any, shown: Any, names: Names) -> bool:
    """Equal values; `{name}` in a recorded text stands for a name of this replay, `{id}` for any."""
    if not isinstance(recorded, str) or not isinstance(shown, str):
        return bool(recorded == shown and isinstance(recorded, bool) == isinstance(shown, bool))
    parts = PLACEHOLDER.split(recorded)
    pattern = "".join(
        (ANY.get(part) or re.escape(names[part])) if odd % 2 and part in {*ANY, *names} else re.escape(part)
        for odd, part in enumerate(parts)
    )
    return re.fullmatch(pattern, shown, re.DOTALL) is not None


def known_deviations() -> dict[str, dict[str, str]]:
    """For each `recording/call`, the differences that are known, with the reason for each."""
    found = json.loads(DEVIATIONS.read_text())
    return {
        place: {what: entry["reason"] for entry in entries for what in entry["differences"]}
        for place, entries in found.items()
    }
