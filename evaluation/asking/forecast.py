"""How long a batch run will take, and what a subset of its lines would cost in certainty."""

import math

from evaluation.asking.measuring import Asking
from evaluation.statistics.intervals import half_width
from phi3flow.core.console import say

LONG = 600.0  # seconds; for a file that takes longer, a subset is named that takes SHORT
SHORT = 300.0


def say_forecast(
    what: str, lines: int, asking: Asking, *, others: int = 0, margin: float | None = None
) -> None:
    """Print the time for `lines` and for `others`, questions outside the file, at the measured rate.

    `margin` is the gate's; None where nothing is decided.
    """
    asked = f"{what} on {lines} lines" + (f" and {others} questions of the packs" if others else "")
    limit = f"at most {asking.max_tokens} tokens an answer"
    if asking.line_seconds is None:
        say(f"{asked}; {limit}")
        return
    each = asking.line_seconds
    say(f"{asked}: about {_minutes((lines + others) * each)}; {limit}")
    fewer = int(SHORT / each)
    if lines * each > LONG and fewer > 0:
        cost = "" if margin is None else _cost(fewer, lines, margin)
        say(f"with --rows {fewer} about {_minutes((fewer + others) * each)}{cost}")
    if others * each > SHORT:
        say(f"the packs take about {_minutes(others * each)} of it; --packs none leaves them out")


def _cost(fewer: int, lines: int, margin: float) -> str:
    """The paired difference's half-width: the interval must clear the margin for a promotion."""
    points, before = (100 * (margin + half_width(n)) for n in (fewer, lines))
    return (
        f", but then tuned must be about {points:.0f} points better to be promoted, instead of {before:.0f}"
        " (if the models differ on half of the lines)"
    )


def _minutes(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds <= 90 else f"{math.ceil(seconds / 60)} min"
