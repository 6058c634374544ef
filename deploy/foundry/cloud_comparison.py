"""The compare flow over a test file, in the cloud: one run, then runs of what failed, and one report.

`cloud.json` in the output folder says what is being compared and which runs were started for it; a name is
written there before its run is submitted, so that an interrupted command finds its run again. Prompt flow's
own resume would not do: a side that failed is an answer of the flow, so that the other side still counts.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from custom_connections.store import configs_of
from deploy.azure.shared.job import COMPLETED, ENDED
from deploy.foundry.connections import as_flows_read_it
from deploy.foundry.flows import require_flow
from deploy.foundry.runs import fetch, status_of, submit, wait
from deploy.foundry.target import Target
from evaluation.asking.answer_file import write_answers
from evaluation.asking.batch import MAX_TOKENS, QUESTION, REFERENCE, inputs_of
from evaluation.asking.promptflow_run import errors_of, outputs_of
from evaluation.compare import compare_recorded
from evaluation.scored_rows import LOST, Record, chats_in, record_of
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


class Started(NamedTuple):
    """A run, and the lines it asks, from 0, in the order of its inputs; None for all."""

    name: str
    lines: Sequence[int] | None


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
    started = [Started(**run) for run in state["runs"]]
    if not started or status_of(target, started[-1].name) in ENDED:
        answers = _gather(target, data, out, started)
        if not answers.failed:
            return answers
        missing = [line - 1 for line in answers.failed] if started else None
        started.append(Started(f"phi3flow-{FLOW}-{uuid.uuid4().hex[:12]}", missing))
        write_json(out / STATE, {**state, "runs": [run._asdict() for run in started]})
    _ask(target, flow, chats, started[-1], out)
    wait(target, started[-1].name)
    return _gather(target, data, out, started)


def _ask(target: Target, flow: str, chats: "Sequence[Chat]", run: Started, out: Path) -> None:
    folder = out / "promptflow" / "inputs"
    inputs = folder / f"{run.name}.jsonl"
    lines = run.lines or range(len(chats))
    if not inputs.exists():
        write_jsonl(inputs, ({**inputs_of(chats[i]), "max_tokens": MAX_TOKENS} for i in lines))
    say(f"{len(lines)} of {len(chats)} lines go to {target.name} as run {run.name}")
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
    started = [Started(**run) for run in state["runs"]]
    if status_of(target, started[-1].name) not in ENDED:
        wait(target, started[-1].name)
    return _gather(target, data, out, started)


def _gather(target: Target, data: Path, out: Path, started: Sequence[Started]) -> CloudAnswers:
    """Later runs win, line by line, where they have an answer."""
    nothing = Record(None, None, LOST)
    sides = {side.name: [nothing] * len(chats_in(data)) for side in SIDES}
    for run in started:
        if status_of(target, run.name) == COMPLETED:
            fetch(target, run.name, out / "promptflow")
            _take(out / "promptflow", run, sides)
    return CloudAnswers(data, sides, [run.name for run in started])


def _take(folder: Path, run: Started, sides: Mapping[str, list[Record]]) -> None:
    outputs, errors = outputs_of(folder, run.name), errors_of(folder, run.name)
    for asked, line in enumerate(run.lines or range(len(sides[BASE.name]))):
        for side, records in sides.items():
            said = outputs[asked][side] if asked in outputs else {}
            record = record_of(said, errors.get(asked))
            if record.answer is not None or records[line].answer is None:
                records[line] = record


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


def report(answers: CloudAnswers, target: str, out: Path, options: "Options") -> "Report":
    """`report.json` and `report.html` in `out`, as a comparison here writes them; the answers beside them.

    Raises what `compare_recorded` raises.
    """
    chats = chats_in(answers.data)
    for side, records in answers.sides.items():
        write_answers(out / f"{side}-answers.jsonl", chats, records)
    base, tuned = (out / f"{side.name}-answers.jsonl" for side in SIDES)
    origin = {"target": target, "cloud runs": list(answers.runs)}
    return compare_recorded(answers.data, base, tuned, out, options, origin=origin)


def failures(answers: CloudAnswers) -> str:
    """The failed lines, counted and listed."""
    failed = answers.failed
    listed = ", ".join(map(str, failed[:SHOWN_LINES])) + (" ..." if len(failed) > SHOWN_LINES else "")
    return f"{len(failed)} of {len(answers.sides[BASE.name])} lines failed: {listed}"
