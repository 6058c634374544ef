"""Batch runs through Prompt flow, joined back to their input.

`pf run` calls a run in which lines failed "Completed", and an evaluation flow on top of it drops those lines
without a word. So every run here is left-joined with its input on the line number, and says how many answers
were expected, how many came and how many failed. Everything a run wrote stays below `out/promptflow/`.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.asking.answer_file import Record
from evaluation.asking.joined import graded_rows, judged_rows, say_failures
from evaluation.asking.lazy import Lazy
from evaluation.asking.promptflow_run import Columns, Limits, errors_of, outputs_of, run_flows
from evaluation.judge.flow_node import JUDGE, check_judge, give_judge
from evaluation.rows import Evaluation, Judged
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint, EndpointError, Sampling, split_turns

if TYPE_CHECKING:
    from phi3flow.chats.rows import Chat

MAX_TOKENS = 256
PREFLIGHT = [{"role": "user", "content": "Who founded Microsoft?"}]
QUESTION = {name: f"${{data.{name}}}" for name in ("question", "chat_history", "system")}
REFERENCE = {"reference": "${data.reference}"}
LOST = "the line was lost"


def run_compare(data: Path, base: str, tuned: str, out: Path, *, workers: int) -> Lazy[Judged]:
    """Ask the endpoints of two connections every question of `data`; None stands for a side that failed.

    The caller has entered the Prompt flow home. Raises BadInput for the file, Phi3flowError when a connection
    is missing, an endpoint does not answer a first question, or Prompt flow itself fails.
    """
    chats = load_test(data)
    endpoints = {"phi3-base": ready(base), "phi3-tuned": ready(tuned)}
    folder = _prepare(chats, ["compare"], out)
    columns: Columns = {"compare": QUESTION | REFERENCE | {"max_tokens": MAX_TOKENS}}
    say(f"comparing {base} and {tuned} on {len(chats)} lines")
    run_flows(folder, endpoints, columns, _limits(endpoints, len(chats), workers))
    outputs, errors = outputs_of(folder, "compare"), errors_of(folder, "compare")
    sides = {
        side: [record_of(outputs[i][side] if i in outputs else {}, errors.get(i)) for i in range(len(chats))]
        for side in ("base", "tuned")
    }
    say_failures(base, sides["base"])
    say_failures(tuned, sides["tuned"])
    return judged_rows(chats, sides["base"], sides["tuned"])


def run_evaluate(
    data: Path, connection: str, out: Path, *, workers: int, judge: str | None = None
) -> Evaluation:
    """Ask one connection's endpoint every question of `data` through the chat flow, then grade the answers.

    `judge` is the connection of a model that grades them as well, in the grade flow's judge node. The caller
    has entered the Prompt flow home. Raises what `run_compare` raises, and BadInput for a judge of another
    contract than openai.
    """
    chats = load_test(data)
    endpoints = {"phi3-tuned": ready(connection)}
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
    return Evaluation(
        graded_rows(chats, records, lambda i: _figures(graded.get(i))), _metrics(folder), len(outputs)
    )


def record_of(said: Mapping[str, Any], error: str | None) -> Record:
    """What a flow said of one line; nothing where Prompt flow lost it, which then says why."""
    if said.get("text") is None:
        return Record(None, None, said.get("error") or error or LOST)
    return Record(said["text"], said.get("seconds"), None, said.get("tokens"))


def _figures(graded: Mapping[str, Any] | None) -> dict[str, float] | None:
    """The numbers among a line's outputs of the grade flow."""
    if graded is None:
        return None
    return {name: value for name, value in graded.items() if isinstance(value, int | float)}


def load_test(data: Path) -> "list[Chat]":
    """Raises BadInput, for a file without chats as well."""
    from phi3flow.chats.rows import load_chats

    chats = load_chats(data)
    if not chats:
        raise BadInput(f"{data}: no chats in it", hint="give the test.jsonl that phi3flow prepare wrote")
    return chats


def ready(connection: str) -> Endpoint:
    """The connection's endpoint, after it answered one question: a batch must not find out line by line."""
    from custom_connections.store import load_endpoint

    endpoint = load_endpoint(connection)
    try:
        endpoint.complete(PREFLIGHT, Sampling(max_tokens=1))
    except EndpointError as error:
        raise Phi3flowError(f"connection '{connection}': {error}", hint=error.hint) from None
    return endpoint


def _prepare(chats: "Sequence[Chat]", flows: Sequence[str], out: Path) -> Path:
    """A new folder for the run's flows, inputs and records; an earlier run's stays as it is."""
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
    """No line can outlast its endpoint's own deadline by much, and no run its lines."""
    workers = min(workers, lines)
    seconds = math.ceil(max(endpoint.timeout for endpoint in endpoints.values())) + 10
    return Limits(workers, seconds, seconds * math.ceil(lines / workers) + 60)


def _metrics(folder: Path) -> dict[str, float]:
    path = folder / "runs" / "grade" / "metrics.json"
    metrics: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return metrics
