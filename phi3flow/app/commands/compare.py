"""Base against tuned, with a verdict."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from evaluation.compare import Options
    from evaluation.report.comparison import Report

SENTENCE = "Ask base and tuned the same questions, and decide: promote, hold, or not enough data."
EXAMPLE = "phi3flow compare runs/mine"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="run folder: serve its base/ and tuned/ here, and ask them its data/test.jsonl",
    )
    _asked_arguments(parser)
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


def _asked_arguments(parser: argparse.ArgumentParser) -> None:
    """Instead of RUN: what anybody serves, or what was answered earlier."""
    parser.add_argument("--data", type=Path, metavar="FILE", help="test.jsonl of prepare")
    parser.add_argument("--base", metavar="NAME", help="connection of the base model")
    parser.add_argument("--tuned", metavar="NAME", help="connection of the tuned model")
    parser.add_argument(
        "--base-answers", type=Path, metavar="FILE", help="recorded answers instead of --base"
    )
    parser.add_argument(
        "--tuned-answers", type=Path, metavar="FILE", help="recorded answers instead of --tuned"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes")


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from evaluation.compare import Options
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from evaluation.verdict.gate import load_gate
    from phi3flow.core.lineage import new_output

    if args.judge_metrics and not args.judge:
        raise BadInput("--judge-metrics needs a judge", hint="--judge NAME")
    compared = _way(args)
    options = Options(
        gate=load_gate(args.gate),
        workers=settings.batch_workers,
        judge=args.judge,
        judge_metrics=args.judge_metrics,
        text_metrics=_text_metrics(args),
        foundry_project=settings.foundry_project,
    )
    out = args.folder or args.out
    new_output(out / "report.json")
    report = compared(args, options, settings)
    text = f"{summary_table(report)}\n{out / 'report.html'}"
    return Outcome(report.as_dict(), text, exit_code(report.verdict, report.failed))


def _way(args: argparse.Namespace) -> "Callable[[argparse.Namespace, Options, Settings], Report]":
    """A run folder, two connections or two files of answers. Raises BadInput for a mixture, or none."""
    connections, files = (args.base, args.tuned), (args.base_answers, args.tuned_answers)
    if args.folder:
        if any((args.data, args.out, args.judge, *connections, *files)):
            raise BadInput(
                f"{args.folder}: a run folder is compared with nothing but its own base/, tuned/ and data/",
                hint="leave the folder out, and give --data, --out and both connections",
            )
        return _compare_run
    if missing := [name for name in ("data", "out") if not getattr(args, name)]:
        raise BadInput(f"--{' and --'.join(missing)}: missing", hint=f"{EXAMPLE}, or phi3flow compare --help")
    if all(connections) and not any(files):
        return _compare
    if not all(files) or any(connections) or args.runner:
        raise BadInput(
            "give two connections, or two files of recorded answers, which nobody runs",
            hint="--base NAME --tuned NAME, or --base-answers FILE --tuned-answers FILE",
        )
    return _compare_recorded


def _compare_run(args: argparse.Namespace, options: "Options", settings: Settings) -> "Report":
    from evaluation.asking.direct_batch import runner_for
    from phi3flow.app.run_comparison import compare_run, require_run, served, test_file

    require_run(args.folder)
    runner = args.runner or runner_for(test_file(args.folder))
    with served(args.folder, settings):
        return compare_run(args.folder, options, packs=args.packs == "all", runner=runner)


def _compare(args: argparse.Namespace, options: "Options", settings: Settings) -> "Report":
    from custom_connections.promptflow_home import enter_home
    from evaluation.asking.direct_batch import runner_for
    from evaluation.compare import compare

    enter_home(settings)
    runner = args.runner or runner_for(args.data)
    return compare(
        args.data, args.base, args.tuned, args.out, options, packs=args.packs == "all", runner=runner
    )


def _compare_recorded(args: argparse.Namespace, options: "Options", settings: Settings) -> "Report":
    from custom_connections.promptflow_home import enter_home
    from evaluation.compare import compare_recorded

    if args.judge:
        enter_home(settings)
    return compare_recorded(args.data, args.base_answers, args.tuned_answers, args.out, options)


def _text_metrics(args: argparse.Namespace) -> str | None:
    from evaluation.metrics.text_metrics import default_backend

    return {None: default_backend(), "none": None}.get(args.text_metrics, args.text_metrics)
