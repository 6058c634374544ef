"""Base against tuned, with a verdict."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.console import Outcome
from phi3flow.errors import BadInput
from phi3flow.settings import Settings

if TYPE_CHECKING:
    from evaluation.compare import Options
    from evaluation.comparison import Report

SENTENCE = "Ask base and tuned the same questions, and decide: promote, hold, or not enough data."
EXAMPLE = "phi3flow compare --data DATA/test.jsonl --base phi3-base --tuned phi3-tuned --out runs/mine"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="test.jsonl of prepare")
    parser.add_argument("--base", metavar="NAME", help="connection of the base model")
    parser.add_argument("--tuned", metavar="NAME", help="connection of the tuned model")
    parser.add_argument(
        "--base-answers", type=Path, metavar="FILE", help="recorded answers instead of --base"
    )
    parser.add_argument(
        "--tuned-answers", type=Path, metavar="FILE", help="recorded answers instead of --tuned"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument(
        "--gate", type=Path, metavar="FILE", help="what a promotion takes (default: packaged)"
    )
    parser.add_argument(
        "--judge", metavar="NAME", help="connection of a model that compares the answers, too"
    )
    parser.add_argument(
        "--judge-metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="what the judge grades as well: coherence fluency relevance groundedness similarity",
    )
    parser.add_argument(
        "--packs",
        choices=("all", "none"),
        default="all",
        help="ask the safety and forgetting questions, too (default: all)",
    )
    parser.add_argument(
        "--runner",
        choices=("pf", "direct"),
        help="who asks: pf run, or the direct runner, which resumes (default: pf up to 2000 lines)",
    )
    parser.add_argument(
        "--text-metrics",
        choices=("azure-ai-evaluation", "promptflow-evals", "none"),
        help="whose ROUGE, BLEU, GLEU, METEOR and F1 (default: azure-ai-evaluation, where installed)",
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from custom_connections.promptflow_home import enter_home
    from evaluation.compare import Options
    from evaluation.gate import load_gate
    from evaluation.report import summary_table
    from evaluation.verdict import exit_code
    from phi3flow.lineage import new_output

    if args.judge_metrics and not args.judge:
        raise BadInput("--judge-metrics needs a judge", hint="--judge NAME")
    recorded = _is_recorded(args)
    options = Options(
        gate=load_gate(args.gate),
        workers=settings.batch_workers,
        judge=args.judge,
        judge_metrics=args.judge_metrics,
        text_metrics=_text_metrics(args),
        foundry_project=settings.foundry_project,
    )
    new_output(args.out / "report.json")
    if args.judge or not recorded:
        enter_home(settings)
    report = _compare_recorded(args, options) if recorded else _compare(args, options)
    text = f"{summary_table(report)}\n{args.out / 'report.html'}"
    return Outcome(report.as_dict(), text, exit_code(report.verdict, report.failed))


def _is_recorded(args: argparse.Namespace) -> bool:
    """Whether two files of answers were given, rather than two connections. Raises BadInput for a mixture."""
    connections, files = (args.base, args.tuned), (args.base_answers, args.tuned_answers)
    if all(connections) and not any(files):
        return False
    if not all(files) or any(connections) or args.runner:
        raise BadInput(
            "give two connections, or two files of recorded answers, which nobody runs",
            hint="--base NAME --tuned NAME, or --base-answers FILE --tuned-answers FILE",
        )
    return True


def _compare(args: argparse.Namespace, options: "Options") -> "Report":
    from evaluation.compare import compare
    from evaluation.runners import runner_for

    runner = args.runner or runner_for(args.data)
    return compare(
        args.data, args.base, args.tuned, args.out, options, packs=args.packs == "all", runner=runner
    )


def _compare_recorded(args: argparse.Namespace, options: "Options") -> "Report":
    from evaluation.compare import compare_recorded

    return compare_recorded(args.data, args.base_answers, args.tuned_answers, args.out, options)


def _text_metrics(args: argparse.Namespace) -> str | None:
    from evaluation.text_metrics import default_backend

    return {None: default_backend(), "none": None}.get(args.text_metrics, args.text_metrics)
