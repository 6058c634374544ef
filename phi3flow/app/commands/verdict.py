"""`phi3flow verdict`: the statistics of recorded preferences."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from phi3flow.app.commands.compare import Gate
from phi3flow.core.console import Outcome


def verdict(
    judgments: Annotated[
        Path,
        Argument(
            metavar="JUDGMENTS.jsonl",
            help="Rows of id, base_chars, tuned_chars and preference (1: tuned is better) or vote.",
        ),
    ],
    gate: Gate = None,
) -> Outcome:
    """Turn recorded preferences between base and tuned into win rates and a verdict.

    example: phi3flow verdict judgments.jsonl

    Exit code 0: promote; 3: hold; 4: not enough data.
    """
    from evaluation.statistics.win_rate import win_rate
    from evaluation.verdict.decision import decide_preference, exit_code
    from evaluation.verdict.gate import load_gate
    from evaluation.verdict.preference_file import load_judgments

    limits = load_gate(gate)
    recorded = load_judgments(judgments)
    rate = win_rate(recorded.preferences)
    decided = decide_preference(rate, limits, recorded.failures)
    data = {
        "win_rate": rate.win_rate,
        "win_rate_ci": rate.win_rate_ci,
        "standard_error": rate.standard_error,
        "length_controlled_win_rate": rate.length.win_rate,
        "length_controlled_win_rate_ci": rate.length.win_rate_ci,
        "length_note": rate.length.note,
        "n": rate.n,
        "failed": sum(recorded.failures.values()),
        "failures": recorded.failures,
        "verdict": decided.decision,
        "reasons": decided.reasons,
        "rows_needed": decided.rows_needed,
    }
    text = "\n".join([*decided.reasons, f"verdict: {decided.decision}"])
    return Outcome(data, text, exit_code(decided.decision, failed=0))
