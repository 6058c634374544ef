"""The statistics of recorded preferences."""

import argparse
from pathlib import Path

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

SENTENCE = "Turn recorded preferences between base and tuned into win rates and a verdict."
EXAMPLE = "phi3flow verdict judgments.jsonl"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "judgments",
        type=Path,
        metavar="JUDGMENTS.jsonl",
        help="rows with id, preference (1: tuned is better; null: failed) or vote, base_chars, tuned_chars",
    )
    parser.add_argument(
        "--gate", type=Path, metavar="FILE", help="what a promotion takes (default: packaged)"
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from evaluation.statistics.win_rate import win_rate
    from evaluation.verdict.decision import exit_code
    from evaluation.verdict.gate import load_gate
    from evaluation.verdict.preference_file import load_judgments
    from evaluation.verdict.preference_verdict import decide_preference

    gate = load_gate(args.gate)
    judgments = load_judgments(args.judgments)
    rate = win_rate(judgments.preferences)
    verdict = decide_preference(rate, gate, judgments.failures)
    data = {
        "win_rate": rate.win_rate,
        "win_rate_ci": rate.win_rate_ci,
        "standard_error": rate.standard_error,
        "length_controlled_win_rate": rate.length.win_rate,
        "length_controlled_win_rate_ci": rate.length.win_rate_ci,
        "length_note": rate.length.note,
        "n": rate.n,
        "failed": sum(judgments.failures.values()),
        "failures": judgments.failures,
        "verdict": verdict.decision,
        "reasons": verdict.reasons,
        "rows_needed": verdict.rows_needed,
    }
    text = "\n".join([*verdict.reasons, f"verdict: {verdict.decision}"])
    return Outcome(data, text, exit_code(verdict.decision, failed=0))
