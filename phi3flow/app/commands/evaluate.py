"""`phi3flow evaluate`: batch evaluation of one endpoint."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from custom_connections.promptflow_home import enter_home
from phi3flow.app.commands.compare import Flow, Metric, Rows, Runner, Schema
from phi3flow.app.services import flow_over
from phi3flow.core.console import Outcome, table
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import one_writer
from phi3flow.core.lineage import Artifact, result_file, write_manifest
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED


@for_owner_alone()  # questions and answers
@one_writer
def evaluate(
    *,
    data: Annotated[Path, Option(metavar="FILE", help="The test.jsonl that `phi3flow prepare` wrote.")],
    connection: Annotated[str, Option(metavar="NAME", help="Connection that `phi3flow connect` stored.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder of evaluation.json.")],
    judge: Annotated[
        str | None,
        Option(metavar="NAME", help="Connection of a model that grades the answers, too (default: none)."),
    ] = None,
    metric: Metric = None,
    schema: Schema = None,
    flow: Flow = None,
    rows: Rows = None,
    force: Annotated[bool, Option("--force", help="Replace an evaluation that is there already.")] = False,
    runner: Runner = None,
) -> Outcome:
    """Ask one endpoint every question of a test file, and grade the answers.

    example: phi3flow evaluate --data runs/demo/data/test.jsonl --connection phi3-tuned --out evaluation

    Exit code 5: done, but some questions got no answer.
    """
    from evaluation.asking.batch import DIRECT, PROMPT_FLOW, run_evaluate, runner_for, write_evaluation
    from evaluation.asking.subset import subset_of
    from evaluation.metrics.chosen import chosen_metrics, files_of, lineage_of

    settings = Settings.load()
    own = chosen_metrics(metric or [], schema)
    path = result_file(out / "evaluation.json", force=force)
    chosen = DIRECT if flow else runner or (PROMPT_FLOW if judge else runner_for(data, rows))
    if judge and chosen == DIRECT:
        other = "--flow" if flow else "--runner"
        raise BadInput("the judge is a node of the grade flow, which pf runs", hint=f"leave {other} out")
    enter_home(settings)
    workers = settings.batch_workers
    subset = subset_of(data, out, rows)
    with flow_over(flow, {TUNED: connection}, out, settings) if flow else nullcontext() as asked_flow:
        result = run_evaluate(
            subset.path,
            connection,
            out,
            workers=workers,
            runner=chosen,
            judge=judge,
            flow=asked_flow,
            own=own,
        )
    summary = {
        "schema": "phi3flow/evaluation/1",
        "connection": connection,
        "expected": result.expected,
        "answered": result.answered,
        "failed": result.failed,
        "max_tokens": result.max_tokens,
        **subset.lineage,
        **({"flow": asdict(asked_flow.source)} if asked_flow else {}),
        **lineage_of(own),
        "metrics": result.metrics,
    }
    write_evaluation(path, summary, result.rows)
    inputs = [Artifact.of("data", data), *files_of(own)]
    write_manifest(out, "evaluation", inputs=inputs, outputs=[Artifact.of("evaluation", path)])
    counts = [[name, str(summary[name])] for name in ("expected", "answered", "failed")]
    means = [[name, f"{value:.3f}".removesuffix(".000")] for name, value in result.metrics.items()]
    text = table(["evaluation", connection], counts + means) + f"\n{path}"
    done = 5 if result.failed else 0
    return Outcome(summary | {"path": str(path)}, text, done if result.answered else 1)
