"""The evidence for each call, written into docs/azure.md and the READMEs of tests/azure: `make evidence`.

A call is a route of the emulator. A recording is worth more than a specification's example, and that more
than a page of documentation.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from azure_emulator.front.route_table import ROUTES
from azure_emulator.front.routing import Plane, Route, Router
from azure_emulator.front.wire import Request
from recorded_calls import DOCUMENTED, FOLDER, Call, Recording, known_deviations, load

ROOT = Path(__file__).parents[3]
DOCS, README = ROOT / "docs" / "azure.md", ROOT / "tests" / "azure" / "README.md"
FACTS = FOLDER / "README.md"
TEST = re.compile(r"Test\w*?(test_\w+)$")  # a recording's file is named after its module, class and test
START, END = "<!-- made by make evidence -->", "<!-- end -->"
REFUSAL = "recorded refusal"
RANK = ("recording", "specification", REFUSAL, "documentation", "none")
SAMPLE = {
    "subscription": "s",
    "group": "g",
    "location": "l",
    "workspace": "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w",
    "group_id": "/subscriptions/s/resourceGroups/g",
}
HOSTS = {"{blobs}": "https://a.blob.core.windows.net/c", "{signed}": "https://a.blob.core.windows.net/c"}
SHORT = {
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/"
    "Microsoft.MachineLearningServices/workspaces/{workspace}": "WORKSPACE",
    "/subscriptions/{subscription}/resourceGroups/{group}": "GROUP",
    "/subscriptions/{subscription}": "SUBSCRIPTION",
    "Microsoft.MachineLearningServices": "ML",
}


class Evidence(NamedTuple):
    """`source` is the file of facts, or the page."""

    kind: str
    source: str


def evidence() -> dict[tuple[str, str, str], Evidence]:
    """The best there is for each route, by host, template and method."""
    found = {_key(route): Evidence("none", "") for route in ROUTES if route.plane is not Plane.CONTROL}
    for key, source in _documented().items():
        found[key] = Evidence("documentation", source)
    router = Router(ROUTES)
    for recording, call, polled in _calls():
        if route := _route(router, call, polled):
            kind = recording.kind if call.status < 400 or recording.kind != "recording" else REFUSAL
            if RANK.index(kind) < RANK.index(found[_key(route)].kind):
                found[_key(route)] = Evidence(kind, recording.name)
    return found


def _calls() -> Iterable[tuple[Recording, Call, str]]:
    """Each call with the address that it polls, if it does."""
    for recording in load():
        polled = ""
        for call in recording.calls:
            polled = call.headers.get("Azure-AsyncOperation", polled)
            yield recording, call, polled


def _key(route: Route) -> tuple[str, str, str]:
    return route.plane.value, route.template, route.method


def _documented() -> Mapping[tuple[str, str, str], str]:
    listed = json.loads(DOCUMENTED.read_text())
    return {(one["host"], one["path"], one["method"]): one["source"] for one in listed["calls"]}


def _route(router: Router, call: Call, polled: str) -> Route | None:
    """The route that answers a recorded call; None for a poll whose address was not recorded."""
    address = polled if call.polls else call.path
    for name, value in (HOSTS | {f"{{{name}}}": value for name, value in SAMPLE.items()}).items():
        address = address.replace(name, value)
    host, path = Plane.MANAGEMENT.value, address
    if address.startswith("https://"):
        host, _, path = address.removeprefix("https://").partition("/")
        path = f"/{path}"
    path = path.replace("/resourcegroups/", "/resourceGroups/")
    found = router.find(Request(call.method, host, path, path, {}, {}, b""))
    return found.route if found else None


def table() -> str:
    """One row for each address; its methods with their evidence."""
    rows: dict[tuple[str, str], list[tuple[str, Evidence]]] = defaultdict(list)
    for (host, template, method), known in evidence().items():
        rows[host, template].append((method, known))
    lines = ["| host | address | evidence |", "|---|---|---|"]
    for (host, template), methods in rows.items():
        told = ", ".join(f"{method} {_told(known)}" for method, known in methods)
        lines.append(f"| {_host(host)} | `{shortened(template)}` | {told} |")
    return "\n".join(lines)


def _told(known: Evidence) -> str:
    return known.kind if known.kind == "none" else f"{known.kind} ({known.source})"


def _host(host: str) -> str:
    return {Plane.MANAGEMENT.value: "management"}.get(host, host)


def shortened(template: str) -> str:
    for long, short in SHORT.items():
        template = template.replace(long, short)
    return template


def unproven() -> str:
    """What the emulator does beyond the recordings, and where it is known to differ from them."""
    without = [
        f"- `{method} {shortened(template)}` ({_host(host)})"
        for (host, template, method), known in evidence().items()
        if known.kind == "none"
    ]
    counted = sum(len(entries) for entries in known_deviations().values())
    lines = ["No recording, specification or documentation was read for:", "", *without, ""]
    lines += [f"Known deviations from what was read ({counted}):", ""]
    for place, entries in known_deviations().items():
        for reason in dict.fromkeys(entries.values()):
            which = ", ".join(f"`{what}`" for what, why in entries.items() if why == reason)
            lines.append(f"- {place}: {which}. {reason}")
    return "\n".join(lines)


def compared() -> str:
    """How much is compared: a row for each file of facts, after the sums of recordings and examples."""
    sums = [_sum_of(kind, [one for one in load() if one.kind == kind]) for kind in RANK[:2]]
    rows = [
        f"| {one.name} | {_source(one)} | {len(one.calls)} | {_facts(one)} | {_deviations(one)} |"
        for one in load()
    ]
    head = ["| facts | read in | calls | compared | deviations |", "|---|---|---|---|---|"]
    return "\n".join([*sums, "", *head, *rows])


def _sum_of(kind: str, found: list[Recording]) -> str:
    calls, facts, deviations = (
        sum(map(count, found)) for count in (lambda one: len(one.calls), _facts, _deviations)
    )
    return (
        f"- {kind}: {len(found)} files, {calls} calls; {facts} statuses, names, values and headers compared; "
        f"deviations: {deviations}"
    )


def _facts(recording: Recording) -> int:
    return sum(call.facts for call in recording.calls)


def _deviations(recording: Recording) -> int:
    known = known_deviations()
    return sum(len(known.get(f"{recording.name}/{call.name}", {})) for call in recording.calls)


def _source(recording: Recording) -> str:
    """The recorded test, or the example's place in its folder."""
    test = TEST.search(Path(recording.path).stem)
    return test[1] if test else recording.path.partition("/examples/")[2].removesuffix(".json")


def with_block(text: str, block: str) -> str:
    """The text with what lies between the two marks replaced."""
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n\n{block}\n\n{END}{tail}"


def made() -> Iterable[tuple[Path, str]]:
    """Each page with its block as it should be."""
    yield DOCS, with_block(DOCS.read_text(encoding="utf-8"), table())
    yield README, with_block(README.read_text(encoding="utf-8"), unproven())
    yield FACTS, with_block(FACTS.read_text(encoding="utf-8"), compared())


if __name__ == "__main__":
    for path, text in made():
        path.write_text(text, encoding="utf-8")
