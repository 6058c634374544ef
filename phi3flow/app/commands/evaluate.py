"""Batch evaluation of one endpoint."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.core.console import Outcome, table
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from evaluation.rows import GradedRow

SENTENCE = "Ask one endpoint every question of a test file through the chat flow, and grade the answers."
EXAMPLE = (
    "phi3flow evaluate --data runs/demo/data/test.jsonl --connection phi3-tuned --out runs/demo/evaluation"
)


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="test.jsonl of prepare")
    parser.add_argument("--connection", required=True, metavar="NAME", help="stored by phi3flow connect")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where evaluation.json goes")
    parser.add_argument(
        "--runner",
        choices=("pf", "direct"),
        help="who asks: pf run, or the direct runner, which resumes (default: pf up to 2000 lines)",
    )
    parser.add_argument(
        "--judge", metavar="NAME", help="connection of a model that grades the answers, in the grade flow"
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from custom_connections.promptflow_home import enter_home
    from evaluation.asking import batch, direct_batch
    from evaluation.asking.direct_batch import DIRECT, PROMPT_FLOW, runner_for
    from phi3flow.core.lineage import Artifact, new_output, write_manifest

    path = new_output(args.out / "evaluation.json")
    runner = args.runner or (PROMPT_FLOW if args.judge else runner_for(args.data))
    if args.judge and runner == DIRECT:
        raise BadInput("the judge is a node of the grade flow, which pf runs", hint="--runner pf")
    enter_home(settings)
    by_pf = partial(batch.run_evaluate, judge=args.judge)
    run_evaluate = direct_batch.run_evaluate if runner == DIRECT else by_pf
    result = run_evaluate(args.data, args.connection, args.out, workers=settings.batch_workers)
    summary = {
        "schema": "phi3flow/evaluation/1",
        "connection": args.connection,
        "expected": result.expected,
        "answered": result.answered,
        "failed": result.failed,
        "metrics": result.metrics,
    }
    _write(path, summary, result.rows)
    write_manifest(
        args.out,
        "evaluation",
        inputs=[Artifact.of("data", args.data)],
        outputs=[Artifact.of("evaluation", path)],
    )
    counts = [[name, str(summary[name])] for name in ("expected", "answered", "failed")]
    means = [[name, f"{value:.3f}".removesuffix(".000")] for name, value in result.metrics.items()]
    text = table(["evaluation", args.connection], counts + means) + f"\n{path}"
    return Outcome(summary | {"path": str(path)}, text, _exit_code(result.answered, result.failed))


def _write(path: Path, summary: dict[str, Any], rows: "Sequence[GradedRow]") -> None:
    """One object, whose rows are written one after the other: there may be any number."""
    from phi3flow.core.files import replacing

    with replacing(path) as stream:
        stream.write(json.dumps(summary, indent=2, ensure_ascii=False).removesuffix("\n}") + ',\n  "rows": [')
        for i, row in enumerate(rows):
            stream.write((",\n    " if i else "\n    ") + json.dumps(asdict(row), ensure_ascii=False))
        stream.write("\n  ]\n}\n")


def _exit_code(answered: int, failed: int) -> int:
    if not answered:
        return 1
    return 5 if failed else 0
