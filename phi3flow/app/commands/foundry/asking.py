"""`phi3flow foundry` run, download and chat: what the uploaded flows are asked."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.app.commands.foundry.common import asked_target
from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from deploy.foundry.cloud_comparison import CloudAnswers

FAILED_LINES = 5


def _out(parser: argparse.ArgumentParser, settings: Settings) -> None:
    default = settings.runs / "azure" / "comparison"
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"answers and report (default {default})"
    )


def run_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="test.jsonl of prepare")
    _out(parser, settings)


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.cloud_comparison import run_in_cloud
    from deploy.foundry.problems import explained

    target = asked_target(args, settings)
    with explained("the run in the cloud"):
        answers = run_in_cloud(target, args.data, args.out)
    return _told(answers, args.out)


def _told(answers: "CloudAnswers", out: Path) -> Outcome:
    from deploy.foundry.cloud_comparison import failures

    data = {"runs": answers.runs, "expected": len(answers.sides["base"]), "failed": answers.failed}
    if answers.failed:
        text = f"{failures(answers)}\nnext: the same command asks them again"
        return Outcome(data, text, FAILED_LINES)
    text = f"all {data['expected']} lines are answered\nnext: phi3flow foundry download --out {out}"
    return Outcome(data, text)


def download_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    _out(parser, settings)
    parser.add_argument(
        "--gate", type=Path, metavar="FILE", help="what a promotion takes (default: packaged)"
    )


def download(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.cloud_comparison import answers_in_cloud
    from deploy.foundry.problems import explained
    from deploy.foundry.results import report
    from evaluation.asking.joined import say_failures
    from evaluation.compare import Options
    from evaluation.metrics.text_metrics import default_backend
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from evaluation.verdict.gate import load_gate
    from phi3flow.core.lineage import new_output

    options = Options(load_gate(args.gate), settings.batch_workers, text_metrics=default_backend())
    new_output(args.out / "report.json")
    target = asked_target(args, settings)
    with explained("the run in the cloud"):
        answers = answers_in_cloud(target, args.out)
    for side, records in answers.sides.items():
        say_failures(side, records)
    made = report(answers, target.name, args.out, options)
    text = f"{summary_table(made)}\n{args.out / 'report.html'}"
    return Outcome(made.as_dict(), text, exit_code(made.verdict, made.failed))


def chat_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("question", metavar="QUESTION", help="what to ask the tuned model")
    parser.add_argument("--system", metavar="TEXT", default="", help="system prompt")


def chat(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.chat import ask
    from deploy.foundry.problems import explained

    target = asked_target(args, settings)
    with explained("the question"):
        answer = ask(target, args.question, args.system)
    return Outcome({"question": args.question, "answer": answer}, answer)
