"""Batch runs, joined with their input: through Prompt flow, or directly for files of any length.

`pf run` reports "Completed" even if lines failed, and an evaluation flow drops those lines. So every run is
left-joined with its input on the line number and reports the lines expected, answered and failed. All files
of a run stay below `out/promptflow/` or `out/direct/`.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.answer_metrics import mean_scores, score_answer
from evaluation.asking.answer_file import write_answers
from evaluation.asking.direct_run import run_direct, streamed_answer
from evaluation.asking.forecast import say_forecast
from evaluation.asking.measuring import Asking, ServedFlow, measure, ready
from evaluation.asking.promptflow_run import JUDGE, Columns, errors_of, give_judge, outputs_of, run_flows
from evaluation.metrics.chosen import ChosenMetric
from evaluation.metrics.grader import openai_base_url
from evaluation.metrics.own import try_metrics, with_own
from evaluation.scored_rows import (
    Evaluation,
    GradedRow,
    Lazy,
    Record,
    ScoredRow,
    chats_in,
    graded_rows,
    record_of,
    say_failures,
    scored_rows,
)
from flows.compare.compare_answer import timed_answer
from phi3flow.core.files import read_json, replacing
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.sides import BASE, SIDES, TUNED
from phi3flow.phi3_contract import Endpoint, Sampling, split_turns

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

PROMPT_FLOW, DIRECT = "pf", "direct"
PROMPT_FLOW_LINES = 2_000  # about what `pf run` answers in a minute at 200 ms an answer
MAX_TOKENS = Sampling.max_tokens
QUESTION = {name: f"${{data.{name}}}" for name in ("question", "chat_history", "system")}
REFERENCE = {"reference": "${data.reference}"}


def runner_for(data: Path, rows: int | None = None) -> str:
    """`pf` for up to 2 000 lines, else `direct`; of `rows` lines if given.

    A missing file is left for the runner to report.
    """
    if not data.is_file() or (rows is not None and rows <= PROMPT_FLOW_LINES):
        return PROMPT_FLOW
    with data.open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    return PROMPT_FLOW if lines <= PROMPT_FLOW_LINES else DIRECT


def run_compare(data: Path, asking: Asking, out: Path, *, runner: str = PROMPT_FLOW) -> Lazy[ScoredRow]:
    """Ask both sides' endpoints every question of `data`; `asking` is what `measure` found, by side.

    Call `enter_home` first. Raises BadInput for the file, and where `out/direct` holds another run's answers;
    Phi3flowError if Prompt flow itself fails.
    """
    chats = chats_in(data, tools=runner == DIRECT)
    records: Mapping[str, Sequence[Record]]
    if runner == DIRECT:
        records = run_direct(
            chats,
            asking.endpoints,
            timed_answer,
            out / "direct",
            data=data,
            workers=asking.most,
            max_tokens=asking.max_tokens,
        )
    else:
        columns = {"compare": QUESTION | REFERENCE | {"max_tokens": asking.max_tokens}}
        endpoints = asking.stored()
        stored = {side.connection: endpoints[side.name] for side in SIDES}
        folder = _run_flows(chats, stored, columns, out, asking.workers)
        outputs = outputs_of(folder, "compare")
        records = {
            side.name: _records(folder, "compare", {i: line[side.name] for i, line in outputs.items()}, chats)
            for side in SIDES
        }
        for name, path in answer_files(out, runner).items():
            write_answers(path, chats, records[name])
    for side in SIDES:
        say_failures(side.name, records[side.name])
    return scored_rows(chats, records[BASE.name], records[TUNED.name])


def answer_files(out: Path, runner: str) -> dict[str, Path]:
    """Where a comparison keeps both sides' answers, in the shape that `answer_file` describes."""
    folder = out / ("direct" if runner == DIRECT else "answers")
    return {side.name: folder / f"{side.name}.jsonl" for side in SIDES}


def run_evaluate(
    data: Path,
    connection: str,
    out: Path,
    *,
    workers: int,
    runner: str = PROMPT_FLOW,
    judge: str | None = None,
    flow: ServedFlow | None = None,
    own: Sequence[ChosenMetric] = (),
) -> Evaluation:
    """Ask one connection's endpoint every question of `data` through the chat flow, then grade the answers.

    `judge` is the connection of a model that also grades them, in the grade flow's judge node; the direct
    runner has none. `flow` stands before the endpoint, with the direct runner; `own` are the user's own
    metrics. Raises what `ready`, `run_compare` and `try_metrics` raise, and BadInput for a judge whose
    contract is not openai.
    """
    chats = chats_in(data, tools=not (judge or flow))
    runner = DIRECT if any(chat.uses_tools for chat in chats) else runner
    try_metrics(own, chats, data, out)
    asking = measure(chats, {TUNED.connection: ready(connection, flow)}, most=workers)
    judges = {JUDGE: ready(judge)} if judge else {}
    for endpoint in judges.values():
        openai_base_url(endpoint)
    say_forecast(f"evaluating {connection}", len(chats), asking)
    if runner == DIRECT:
        asked = {"answers": asking.endpoints[TUNED.connection]}
        limit = asking.max_tokens
        folder = out / "direct"
        found = run_direct(
            chats, asked, streamed_answer, folder, data=data, workers=workers, max_tokens=limit
        )
        say_failures(connection, found["answers"])
        return with_own(_graded_here(chats, found["answers"], limit), own, chats, data, out)
    columns: Columns = {
        "chat": QUESTION | {"max_tokens": asking.max_tokens},
        "grade": REFERENCE | {"question": "${data.question}", "answer": "${run.outputs.answer}"},
    }
    endpoints = asking.stored() | judges
    folder = _run_flows(chats, endpoints, columns, out, asking.workers)
    said = {i: {"text": line["answer"]} for i, line in outputs_of(folder, "chat").items()}
    records = _records(folder, "chat", said, chats)
    say_failures(connection, records)
    graded = _graded_by_flow(chats, records, folder, asking.max_tokens)
    return with_own(graded, own, chats, data, out)


def _graded_here(chats: "Sequence[Chat]", records: Sequence[Record], max_tokens: int) -> Evaluation:
    def scores(i: int) -> dict[str, float] | None:
        text = records[i].answer
        return None if text is None else score_answer(text, chats[i].reference)

    rows = graded_rows(chats, records, scores)
    answered = sum(record.answer is not None for record in records)
    means = mean_scores(row.scores for row in rows if row.scores is not None)
    return Evaluation(rows, means | ({"lines": float(answered)} if answered else {}), answered, max_tokens)


def _graded_by_flow(
    chats: "Sequence[Chat]", records: Sequence[Record], folder: Path, max_tokens: int
) -> Evaluation:
    graded = {
        i: {name: value for name, value in line.items() if isinstance(value, int | float)}
        for i, line in outputs_of(folder, "grade").items()
    }
    summary = folder / "runs" / "grade" / "metrics.json"
    answered = sum(record.answer is not None for record in records)
    metrics = read_json(summary) if summary.exists() else {}
    return Evaluation(graded_rows(chats, records, graded.get), metrics, answered, max_tokens)


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


def _run_flows(
    chats: "Sequence[Chat]", endpoints: Mapping[str, Endpoint], columns: Columns, out: Path, workers: int
) -> Path:
    """Run the flows in a new folder."""
    parent = out / "promptflow"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{[*columns][-1]}-", dir=parent))
    (folder / "flows").mkdir()
    for name in columns:
        resolve_flow(name, folder / "flows" / name)
    if JUDGE in endpoints:
        give_judge(folder / "flows" / "grade", endpoints[JUDGE])
    write_jsonl(folder / "inputs.jsonl", (inputs_of(chat) for chat in chats))
    run_flows(folder, endpoints, columns, lines=len(chats), workers=workers)
    return folder


def _records(
    folder: Path, flow: str, said: Mapping[int, Mapping[str, Any]], chats: "Sequence[Chat]"
) -> list[Record]:
    errors = errors_of(folder, flow)
    return [record_of(said.get(i, {}), errors.get(i)) for i in range(len(chats))]


def inputs_of(chat: "Chat") -> dict[str, Any]:
    """A chat as a line of `inputs.jsonl`."""
    turns = split_turns(chat.prompt)
    return {
        "question": turns.question,
        "chat_history": turns.history,
        "system": turns.system,
        "reference": chat.reference,
    }
