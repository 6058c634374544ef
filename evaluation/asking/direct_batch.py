"""The batches of `evaluation.asking.batch` by the direct runner: the same rows, for files of any length."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.answer_metrics import score_answer
from evaluation.asking.answer_file import Record
from evaluation.asking.batch import MAX_TOKENS, ready
from evaluation.asking.direct_run import Ask, AskedSide, chat_function, compare_function, run_direct
from evaluation.asking.joined import chats_in, graded_rows, say_failures, scored_rows
from evaluation.rows import Evaluation, GradedRow, Lazy, ScoredRow
from phi3flow.core.console import say
from phi3flow.core.lineage import sha256_of
from phi3flow.core.sides import BASE, TUNED
from phi3flow.phi3_contract import Sampling

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

PROMPT_FLOW, DIRECT = "pf", "direct"
PROMPT_FLOW_LINES = 2_000  # about what `pf run` answers in a minute at 200 ms an answer


def runner_for(data: Path) -> str:
    """`pf` for up to 2 000 lines, else `direct`. A missing file is left for the runner to report."""
    if not data.is_file():
        return PROMPT_FLOW
    with data.open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    return PROMPT_FLOW if lines <= PROMPT_FLOW_LINES else DIRECT


def run_compare(data: Path, base: str, tuned: str, out: Path, *, workers: int) -> Lazy[ScoredRow]:
    """`batch.run_compare` in `out/direct/`. Also raises BadInput if that holds another run's answers."""
    chats = chats_in(data)
    say(f"comparing {base} and {tuned} on {len(chats)} lines")
    connections = {BASE.name: base, TUNED.name: tuned}
    records = _ask(chats, data, connections, compare_function(), out, workers=workers)
    return scored_rows(chats, records[BASE.name], records[TUNED.name])


def run_evaluate(data: Path, connection: str, out: Path, *, workers: int) -> Evaluation:
    """`batch.run_evaluate` in `out/direct/`. Raises the same as `run_compare`."""
    chats = chats_in(data)
    say(f"evaluating {connection} on {len(chats)} lines")
    records = _ask(chats, data, {"answers": connection}, chat_function(), out, workers=workers)["answers"]

    def scores(i: int) -> dict[str, float] | None:
        answer = records[i].answer
        return None if answer is None else score_answer(answer, chats[i].reference)

    rows = graded_rows(chats, records, scores)
    metrics = _means(rows)
    return Evaluation(rows, metrics, int(metrics.get("lines", 0)))


def _ask(
    chats: "Sequence[Chat]", data: Path, connections: dict[str, str], ask: Ask, out: Path, *, workers: int
) -> dict[str, Lazy[Record]]:
    records = run_direct(
        chats,
        [AskedSide(name, ready(connection)) for name, connection in connections.items()],
        ask,
        out / "direct",
        sampling=Sampling(max_tokens=MAX_TOKENS),
        data_sha256=sha256_of(data),
        workers=workers,
    )
    for name, connection in connections.items():
        say_failures(connection, records[name])
    return records


def _means(rows: Sequence[GradedRow]) -> dict[str, float]:
    """The grade flow's means, in one pass."""
    sums: Counter[str] = Counter()
    for row in rows:
        if row.scores is not None:
            sums.update({"lines": 1.0} | row.scores)
    lines = sums.pop("lines", 0)
    return {name: value / lines for name, value in sums.items()} | {"lines": float(lines)} if lines else {}
