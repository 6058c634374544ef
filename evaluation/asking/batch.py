"""Batch runs through Prompt flow, joined with their input.

`pf run` reports "Completed" even if lines failed, and an evaluation flow drops those lines. So every run is
left-joined with its input on the line number and reports the lines expected, answered and failed. All files
of a run stay below `out/promptflow/`.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.asking.answer_file import Record
from evaluation.asking.joined import graded_rows, say_failures, scored_rows
from evaluation.asking.promptflow_run import Columns, Limits, errors_of, outputs_of, run_flows
from evaluation.judge.flow_node import JUDGE, check_judge, give_judge
from evaluation.rows import Evaluation, GradedRow, Lazy, ScoredRow
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import replacing
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.sides import BASE, SIDES, TUNED
from phi3flow.phi3_contract import Endpoint, EndpointError, Sampling, split_turns

if TYPE_CHECKING:
    from phi3flow.chats.rows import Chat

MAX_TOKENS = 256
PREFLIGHT = [{"role": "user", "content": "Who founded Microsoft?"}]
QUESTION = {name: f"${{data.{name}}}" for name in ("question", "chat_history", "system")}
REFERENCE = {"reference": "${data.reference}"}
LOST = "Prompt flow returned nothing for this line"


def run_compare(data: Path, base: str, tuned: str, out: Path, *, workers: int) -> Lazy[ScoredRow]:
    """Ask the endpoints of two connections every question of `data`.

    Call `enter_home` first. Raises BadInput for the file, Phi3flowError if a connection is missing, an
    endpoint does not answer a first question, or Prompt flow itself fails.
    """
    chats = load_test(data)
    endpoints = {BASE.connection: ready(base), TUNED.connection: ready(tuned)}
    folder = _prepare(chats, ["compare"], out)
    columns: Columns = {"compare": QUESTION | REFERENCE | {"max_tokens": MAX_TOKENS}}
    say(f"comparing {base} and {tuned} on {len(chats)} lines")
    run_flows(folder, endpoints, columns, _limits(endpoints, len(chats), workers))
    outputs, errors = outputs_of(folder, "compare"), errors_of(folder, "compare")
    base_records, tuned_records = (
        [record_of(outputs[i][side.name] if i in outputs else {}, errors.get(i)) for i in range(len(chats))]
        for side in SIDES
    )
    say_failures(base, base_records)
    say_failures(tuned, tuned_records)
    return scored_rows(chats, base_records, tuned_records)


def run_evaluate(
    data: Path, connection: str, out: Path, *, workers: int, judge: str | None = None
) -> Evaluation:
    """Ask one connection's endpoint every question of `data` through the chat flow, then grade the answers.

    `judge` is the connection of a model that also grades them, in the grade flow's judge node. Call
    `enter_home` first. Raises what `run_compare` raises, and BadInput for a judge whose contract is not
    openai.
    """
    chats = load_test(data)
    endpoints = {TUNED.connection: ready(connection)}
    if judge:
        check_judge(endpoints.setdefault(JUDGE, ready(judge)))
    folder = _prepare(chats, ["chat", "grade"], out)
    columns: Columns = {
        "chat": QUESTION | {"max_tokens": MAX_TOKENS},
        "grade": REFERENCE | {"question": "${data.question}", "answer": "${run.outputs.answer}"},
    }
    if judge:
        give_judge(folder / "flows" / "grade", endpoints[JUDGE])
    say(f"evaluating {connection} on {len(chats)} lines")
    run_flows(folder, endpoints, columns, _limits(endpoints, len(chats), workers))
    outputs, errors = outputs_of(folder, "chat"), errors_of(folder, "chat")
    records = [
        record_of({"text": outputs[i]["answer"]} if i in outputs else {}, errors.get(i))
        for i in range(len(chats))
    ]
    say_failures(connection, records)
    graded = outputs_of(folder, "grade")
    rows = graded_rows(chats, records, lambda i: _scores(graded.get(i)))
    return Evaluation(rows, _metrics(folder), len(outputs))


def write_evaluation(path: Path, summary: Mapping[str, Any], rows: Iterable[GradedRow]) -> None:
    """Write `summary` with the key `rows` as one JSON object. Holds one row in memory at a time."""
    with replacing(path) as stream:
        stream.write("{\n")
        for name, value in summary.items():
            stream.write(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n")
        stream.write('  "rows": [')
        for i, row in enumerate(rows):
            stream.write(",\n    " if i else "\n    ")
            stream.write(json.dumps(asdict(row), ensure_ascii=False))
        stream.write("\n  ]\n}\n")


def record_of(said: Mapping[str, Any], error: str | None) -> Record:
    """A flow's output for one line as a record; `error` is Prompt flow's, for a line without output."""
    if said.get("text") is None:
        return Record(None, None, said.get("error") or error or LOST)
    return Record(said["text"], said.get("seconds"), None, said.get("tokens"))


def _scores(graded: Mapping[str, Any] | None) -> dict[str, float] | None:
    """The numbers among the grade flow's outputs for a line."""
    if graded is None:
        return None
    return {name: value for name, value in graded.items() if isinstance(value, int | float)}


def load_test(data: Path) -> "list[Chat]":
    """Raises BadInput for a bad row, and for a file without chats."""
    from phi3flow.chats.rows import load_chats

    return load_chats(data)


def ready(connection: str) -> Endpoint:
    """The connection's endpoint, once it has answered one question. Raises Phi3flowError if it does not."""
    from custom_connections.store import load_endpoint

    endpoint = load_endpoint(connection)
    try:
        endpoint.complete(PREFLIGHT, Sampling(max_tokens=1))
    except EndpointError as error:
        raise Phi3flowError(f"connection '{connection}': {error}", hint=error.hint) from None
    return endpoint


def _prepare(chats: "Sequence[Chat]", flows: Sequence[str], out: Path) -> Path:
    """A new folder with the flows and their inputs."""
    parent = out / "promptflow"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{flows[-1]}-", dir=parent))
    (folder / "flows").mkdir()
    for name in flows:
        resolve_flow(name, folder / "flows" / name)
    write_jsonl(folder / "inputs.jsonl", (inputs_of(chat) for chat in chats))
    return folder


def inputs_of(chat: "Chat") -> dict[str, Any]:
    """A chat as a line of `inputs.jsonl`."""
    turns = split_turns(chat.prompt)
    return {
        "question": turns.question,
        "chat_history": turns.history,
        "system": turns.system,
        "reference": chat.reference,
    }


def _limits(endpoints: Mapping[str, Endpoint], lines: int, workers: int) -> Limits:
    """Deadlines for a line and for the whole run, from the endpoints' own timeouts."""
    workers = min(workers, lines)
    seconds = math.ceil(max(endpoint.timeout for endpoint in endpoints.values())) + 10
    return Limits(workers, seconds, seconds * math.ceil(lines / workers) + 60)


def _metrics(folder: Path) -> dict[str, float]:
    path = folder / "runs" / "grade" / "metrics.json"
    metrics: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return metrics
