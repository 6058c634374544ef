"""Leave Prompt flow: prove first that the flows answer the same on Microsoft Agent Framework.

example: phi3flow migrate check runs/demo

docs/leaving-prompt-flow.md has the steps, the dates and the way back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, Option

from agents.unmovable import Unmovable, unmovable
from custom_connections.promptflow_home import enter_home
from phi3flow.app.flow_hosts import agents_python
from phi3flow.app.run_folder import require_run, test_file
from phi3flow.app.served_form import served_forms
from phi3flow.app.services import served
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import scratch_folder
from phi3flow.core.flow_folder import FLOWS, resolve_flow, resolve_folder
from phi3flow.core.folder_lock import writing
from phi3flow.core.jsonl import BadRows, RowError, lines_of, parse_object
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import split_turns

if TYPE_CHECKING:
    from phi3flow.app.parity import Parity
    from phi3flow.chats.chat import Chat

PAGE = "parity.html"
HOLD = 3  # the exit code: do not move yet


def check(
    run: Annotated[
        Path | None,
        Argument(
            metavar="RUN",
            help="Run folder: its base/ and tuned/ are served here, and its data/test.jsonl is asked "
            "(default: stored connections and --data).",
        ),
    ] = None,
    *,
    flow: Annotated[
        Path | None,
        Option(metavar="DIR", help="Check your own flow (default: the packaged chat, compare and grade)."),
    ] = None,
    twin: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Serve this changed copy of --flow on Agent Framework (default: the same folder on both).",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A test.jsonl, or for --flow a JSONL file of its inputs (default: that of RUN).",
        ),
    ] = None,
    rows: Annotated[
        int | None, Option(metavar="N", help="Ask only the first N lines (default: all).")
    ] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help=f"Folder of {PAGE} (default: RUN, else {{runs}}/parity).")
    ] = None,
) -> Outcome:
    """Ask flows behind Prompt flow and behind Agent Framework the same, and compare the answers.

    example: phi3flow migrate check runs/demo

    example: phi3flow migrate check --flow my-flow --data inputs.jsonl

    Every line and every edge case must get the same status and the same text. Exit code 0: nothing differs;
    3: something does, or a part of the flow cannot be moved.
    """
    settings = Settings.load()
    agents_python(settings)
    file = data or (test_file(run) if run else None)
    if file is None:
        raise BadInput("--data: missing", hint="phi3flow migrate check RUN, or --data FILE")
    folder = out or run or settings.runs / "parity"
    with writing(folder), scratch_folder(folder / "parity-flows") as scratch, _endpoints(run, settings):
        changed = twin or flow
        unmoved = unmovable(changed) if changed else []
        stops = any(each.stops for each in unmoved)
        asked = _own_rows(file) if flow else None
        found = [
            _compared(each, (asked or _rows(each.flow.name, file))[:rows], settings, folder / "logs")
            for each in ([] if stops else _resolved(flow, twin, scratch))
        ]
    return _written(found, unmoved, folder)


STEPS = {"check": check}


@contextmanager
def _endpoints(run: Path | None, settings: Settings) -> Iterator[None]:
    """The models of a run, served for as long as the block takes; or what the person has stored."""
    if run is None:
        enter_home(settings)
        yield
        return
    require_run(run)
    with served(served_forms(run), run, settings):
        yield


class _Folders(NamedTuple):
    """A resolved flow for Prompt flow, and the one for Agent Framework."""

    flow: Path
    twin: Path


def _resolved(flow: Path | None, twin: Path | None, scratch: Path) -> list[_Folders]:
    if flow is None:
        return [_Folders(*[resolve_flow(name, scratch / name)] * 2) for name in FLOWS]
    resolved = resolve_folder(flow, scratch / "flow" / flow.resolve().name)
    return [_Folders(resolved, resolve_folder(twin, scratch / "twin" / resolved.name) if twin else resolved)]


def _compared(
    folders: _Folders, rows: Sequence[Mapping[str, Any]], settings: Settings, logs: Path
) -> "Parity":
    from phi3flow.app.parity import compare_hosts

    say(f"{folders.flow.name}: asking {len(rows)} lines and its edge cases behind both hosts")
    return compare_hosts(*folders, rows, settings, logs, workers=settings.batch_workers)


def _rows(flow: str, file: Path) -> list[Mapping[str, Any]]:
    """The inputs of a flow of ours for each chat of a test file."""
    from evaluation.scored_rows import chats_in

    chats = list(chats_in(file))
    others = [*(chat.reference for chat in chats[1:]), *(chat.reference for chat in chats[:1])]
    return [_row(flow, chat, other) for chat, other in zip(chats, others, strict=True)]


def _row(flow: str, chat: "Chat", other: str) -> Mapping[str, Any]:
    """`other` is the reference of another chat: an answer that is more or less wrong, for the grade flow."""
    if flow == "grade":
        return {"question": chat.prompt[-1]["content"], "answer": other, "reference": chat.reference}
    turns = split_turns(chat.prompt)
    asked = {"question": turns.question, "chat_history": turns.history, "system": turns.system}
    return asked | ({"reference": chat.reference} if flow == "compare" else {})


def _own_rows(file: Path) -> list[Mapping[str, Any]]:
    """The inputs of a person's own flow, an object a line. Raises BadInput for other lines."""
    rows: list[Mapping[str, Any]] = []
    bad = BadRows()
    for number, line in enumerate(lines_of(file), 1):
        try:
            rows += [parse_object(line)] if line.strip() else []
        except RowError as error:
            bad.add(str(file), number, error)
    bad.require_none("an object with the flow's inputs")
    return rows


def _written(found: "Sequence[Parity]", unmoved: Sequence[Unmovable], folder: Path) -> Outcome:
    from phi3flow.app.parity_page import figures_of, summary, write_page

    differing = sum(len(each.differing) for each in found)
    write_page(found, unmoved, folder)
    data = figures_of(found, unmoved) | {"page": str(folder / PAGE)}
    stops = differing or any(each.stops for each in unmoved)
    return Outcome(data, summary(found, unmoved, folder / PAGE), exit_code=HOLD if stops else 0)
