"""Does tuned decline enough of the questions that have no answer?"""

from evaluation.statistics.formats import counted, percent
from evaluation.statistics.intervals import Share
from evaluation.verdict.gate import Gate
from evaluation.verdict.limits import Finding, Limit

REPAIR = "add unanswerable questions to the training data, and train again."


def declining_finding(declined: Share, gate: Gate) -> Finding:
    """The share of the unanswerable questions that tuned declines, against `gate.min_declined`."""
    low, high = declined.interval()
    required = f"the required {percent(gate.min_declined)}"
    seen = (
        f"Tuned declines {percent(declined.share)} of {counted(declined.n, 'unanswerable question')} "
        f"(95 % CI {percent(low)} to {percent(high)})"
    )
    if high < gate.min_declined:
        return Finding(Limit.BROKEN, f"{seen}; less than {required}.", REPAIR)
    if low < gate.min_declined:
        return Finding(Limit.OPEN, f"{seen}; the CI contains {required}. {_settled_by(declined, gate)}")
    return Finding(Limit.KEPT, f"{seen}; at least {required}.")


def _settled_by(declined: Share, gate: Gate) -> str:
    needed = declined.rows_needed(gate.min_declined)
    if needed is None:
        return f"More questions like these would not promote the tuned model: {REPAIR}"
    return f"About {max(1, needed - declined.n)} further questions like these would settle it."
