"""The whole loop on the embedded default."""

import argparse
from pathlib import Path

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

SENTENCE = "Run the whole loop on this machine: data, base, fine-tuning, endpoints, Prompt flow, verdict."
EXAMPLE = "phi3flow demo --seed 1"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of the chats, the weights and the training")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/demo, or -seedN)")


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from phi3flow.app.demo import QUESTION, run_demo

    folder = args.out or settings.runs / ("demo" if args.seed == 0 else f"demo-seed{args.seed}")
    demo = run_demo(folder, settings, seed=args.seed)
    data = demo.report.as_dict() | {"path": str(folder / "report.json"), "answers": demo.answers}
    text = (
        f"{summary_table(demo.report)}\n\n{QUESTION}\n"
        f"  base:  {demo.answers['phi3-base']}\n  tuned: {demo.answers['phi3-tuned']}\n\n"
        f"report: {folder / 'report.html'}\nnext: phi3flow up {folder}"
    )
    return Outcome(data, text, exit_code(demo.report.verdict, demo.report.failed))
