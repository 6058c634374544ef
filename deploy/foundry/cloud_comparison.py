"""The compare flow over a test file, in the cloud: one run, then runs of what failed, and one report.

`cloud.json` in the output folder says what is being compared and which runs were started for it; a name is
written there before its run is submitted, so that an interrupted command finds its run again. Prompt flow's
own resume would not do: a side that failed is an answer of the flow, so that the other side still counts.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_connections.store import configs_of
from deploy.foundry.connections import as_flows_read_it
from deploy.foundry.flows import require_flow
from deploy.foundry.runs import COMPLETED, ENDED, fetch, find_run, submit, wait
from deploy.foundry.target import Target
from evaluation.asking.batch import LOST, MAX_TOKENS, QUESTION, REFERENCE, inputs_of, record_of
from evaluation.asking.promptflow_run import errors_of, outputs_of
from evaluation.compare import compare_recorded
from evaluation.scored_rows import Record, chats_in
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import sha256_of
from phi3flow.core.sides import BASE, SIDES

if TYPE_CHECKING:
    from evaluation.compare import Options
    from evaluation.report.comparison import Report
    from phi3flow.chats.chat import Chat

SCHEMA = "phi3flow/cloud-run/1"
STATE = "cloud.json"
FLOW = "compare"
COLUMNS = QUESTION | REFERENCE | {"max_tokens": "${data.max_tokens}"}
SHOWN_LINES = 20


@dataclass(frozen=True)
class Started:
    """A run, and the lines it asks, from 0, in the order of its inputs."""

    name: str
    lines: Sequence[int]


@dataclass(frozen=True)
class CloudAnswers:
    """What both models answered to each line of the test file."""

    data: Path
    sides: Mapping[str, Sequence[Record]]  # by the side's name
    runs: Sequence[str]

    @property
    def failed(self) -> list[int]:
        """The lines, from 1, on which a model has no answer."""
        pairs = zip(*(self.sides[side.name] for side in SIDES), strict=True)
        return [number for number, pair in enumerate(pairs, 1) if any(one.answer is None for one in pair)]


def run_in_cloud(target: Target, data: Path, out: Path) -> CloudAnswers:
    """Ask every line that has no answers yet, and fetch what came back into `out/promptflow`.

    Raises BadInput where `out` holds runs of something else, Phi3flowError where a connection or the flow is
    missing in the cloud, or the run fails as a whole.
    """
    chats = chats_in(data)
    flow = require_flow(target, FLOW)
    state = _state(target, data, flow, out)
    started = _started(state, len(chats))
    if not started or _is_over(target, started[-1]):
        missing = [line - 1 for line in _gather(target, data, out, started).failed]
        if not missing:
            return _gather(target, data, out, started)
        started.append(Started(f"phi3flow-{FLOW}-{uuid.uuid4().hex[:12]}", missing))
        _remember(state, started, out)
    _ask(target, flow, chats, started[-1], out)
    wait(target, started[-1].name)
    return _gather(target, data, out, started)


def _ask(target: Target, flow: str, chats: "Sequence[Chat]", run: Started, out: Path) -> None:
    folder = out / "promptflow" / "inputs"
    inputs = folder / f"{run.name}.jsonl"
    if not inputs.exists():
        write_jsonl(inputs, ({**inputs_of(chats[i]), "max_tokens": MAX_TOKENS} for i in run.lines))
    say(f"{len(run.lines)} of {len(chats)} lines go to {target.name} as run {run.name}")
    submit(target, run.name, flow, inputs, COLUMNS)


def answers_in_cloud(target: Target, out: Path) -> CloudAnswers:
    """What the runs of `out` have answered, fetched where it is not here. Raises BadInput without any run."""
    if not (out / STATE).exists():
        raise BadInput(f"{out}: no run in the cloud is recorded there", "phi3flow foundry run --data FILE")
    state = read_json(out / STATE)
    data = Path(state["path"])
    if not data.is_file() or sha256_of(data) != state["data"]:
        raise BadInput(
            f"{data} is not the file that was asked in the cloud any more", "bring it back, or run again"
        )
    started = _started(state, len(chats_in(data)))
    for run in started[-1:]:
        if not _is_over(target, run):
            wait(target, run.name)
    return _gather(target, data, out, started)


def _gather(target: Target, data: Path, out: Path, started: Sequence[Started]) -> CloudAnswers:
    """Later runs win, line by line, where they have an answer."""
    nothing = Record(None, None, LOST)
    count = len(chats_in(data))
    sides = {side.name: [nothing] * count for side in SIDES}
    for run in started:
        found = find_run(target, run.name)
        if found is None or found.status != COMPLETED:
            continue
        fetch(target, run.name, out / "promptflow")
        _take(out / "promptflow", run, sides)
    return CloudAnswers(data, sides, [run.name for run in started])


def _take(folder: Path, run: Started, sides: Mapping[str, list[Record]]) -> None:
    outputs, errors = outputs_of(folder, run.name), errors_of(folder, run.name)
    for asked, line in enumerate(run.lines):
        for side, records in sides.items():
            said = outputs[asked][side] if asked in outputs else {}
            record = record_of(said, errors.get(asked))
            if record.answer is not None or records[line].answer is None:
                records[line] = record


def _is_over(target: Target, run: Started) -> bool:
    """Whether a recorded run has ended; one that was never submitted has not begun."""
    found = find_run(target, run.name)
    return found is not None and found.status in ENDED


def _state(target: Target, data: Path, flow: str, out: Path) -> dict[str, Any]:
    """What `out` is for: the test file, the flow as uploaded, and the endpoints behind its connections."""
    names = [side.connection for side in SIDES]
    endpoints = {name: configs_of(as_flows_read_it(target.cloud, name)) for name in names}
    asked = {
        "schema": SCHEMA,
        "data": sha256_of(data),
        "target": target.id,
        "flow": flow,
        "connections": endpoints,
    }
    found: dict[str, Any] = read_json(out / STATE) if (out / STATE).exists() else {**asked, "runs": []}
    others = [name for name in asked if found.get(name) != asked[name]]
    if others:
        raise BadInput(
            f"{out} holds runs with another {' and another '.join(others)}", "choose another --out"
        )
    return {**found, "path": data.as_posix()}


def _started(state: Mapping[str, Any], count: int) -> list[Started]:
    """The first run of all lines is kept without them."""
    return [Started(run["name"], run["lines"] or range(count)) for run in state["runs"]]


def _remember(state: dict[str, Any], started: Sequence[Started], out: Path) -> None:
    first, *others = started
    runs: list[dict[str, Any]] = [{"name": first.name, "lines": None}]
    runs += [{"name": run.name, "lines": list(run.lines)} for run in others]
    write_json(out / STATE, {**state, "runs": runs})


def write_answers(answers: CloudAnswers, out: Path) -> list[Path]:
    """`base-answers.jsonl` and `tuned-answers.jsonl`, as `evaluation.asking.answer_file` describes them."""
    written = []
    for side in SIDES:
        rows = [
            {"line": line, **_given(record), "answer": record.answer}
            for line, record in enumerate(answers.sides[side.name], 1)
        ]
        written.append(out / f"{side.name}-answers.jsonl")
        write_jsonl(written[-1], rows)
    return written


def _given(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record._asdict().items() if value is not None}


def report(answers: CloudAnswers, target: str, out: Path, options: "Options") -> "Report":
    """`report.json` and `report.html` in `out`, as a comparison here writes them.

    Raises what `compare_recorded` raises.
    """
    base, tuned = write_answers(answers, out)
    origin = {"target": target, "cloud runs": list(answers.runs)}
    return compare_recorded(answers.data, base, tuned, out, options, origin=origin)


def failures(answers: CloudAnswers) -> str:
    """The failed lines, counted and listed."""
    failed = answers.failed
    listed = ", ".join(map(str, failed[:SHOWN_LINES])) + (" ..." if len(failed) > SHOWN_LINES else "")
    return f"{len(failed)} of {len(answers.sides[BASE.name])} lines failed: {listed}"
