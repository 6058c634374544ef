"""The report's tables as cells, for every format."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from evaluation.metrics.likelihood import LOG_LIKELIHOOD
from evaluation.report.comparison import Report
from evaluation.statistics import formats
from evaluation.statistics.contrasts import Contrast, MetricContrast
from evaluation.statistics.intervals import Interval
from evaluation.statistics.scores import Kind
from evaluation.verdict.decision import Decision
from evaluation.verdict.gate import WIN_RATE

Shown = Callable[[float | None], str]
_HEADLINES = {
    Decision.PROMOTE: "Promote the tuned model",
    Decision.HOLD: "Hold: keep the base model",
    Decision.NOT_ENOUGH_DATA: "Not decided: keep the base model for now",
}
LABELS = {
    "exact_match": "Exact match",
    "token_f1": "Token F1",
    "answer_chars": "Answer length (characters)",
    "answer_tokens": "Answer length (tokens)",
    "json_valid": "Valid JSON",
    "schema_valid": "Follows its schema",
    "tool_call_match": "Right tool calls",
    LOG_LIKELIHOOD: "Log-likelihood of the reference (nats per token)",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "gleu": "GLEU",
    "meteor": "METEOR",
    "f1_score": "F1 of the evaluation package",
    WIN_RATE: "Win rate by the judge's preferences",
}
COUNTS = ("answer_chars", "answer_tokens")


def label(metric: str) -> str:
    """What the reports call a metric; one of the user's own by its name."""
    return LABELS.get(metric) or f"{metric.replace('_', ' ').strip().capitalize()} (own metric)"


class Table(NamedTuple):
    head: list[str]
    rows: list[list[str]]


def headline(report: Report) -> str:
    """The verdict in words, with the packs that were not asked."""
    missing = f" ({' and '.join(report.not_asked)}: not asked)" if report.not_asked else ""
    return _HEADLINES[report.verdict] + missing


def tiles(report: Report) -> list[tuple[str, str]]:
    """Both models and their difference in the metric that decides, as label and value."""
    if report.gate.primary == WIN_RATE:
        won = None if report.difference is None else 0.5 + report.difference
        lost = None if won is None else 1 - won
        shares = [("Base wins, ties count half", lost), ("Tuned wins, ties count half", won)]
        above = ("Tuned's share above one half, points", formats.points(report.difference))
        return [*((name, formats.percent(share)) for name, share in shares), above]
    seen, called = report.metrics[report.gate.primary], label(report.gate.primary)
    named = called[0].lower() + called[1:] if called == "Exact match" else called
    return [
        (f"Base, {named}", formats.percent(seen.base)),
        (f"Tuned, {named}", formats.percent(seen.tuned)),
        ("Difference, points", formats.points(seen.difference)),
    ]


def tables(report: Report) -> list[Table]:
    """Metrics, then packs and the judge's grades where there are any."""
    columns = ["base", "tuned", "difference", "95 % CI", "rows"]
    metrics = [[label(name), *metric_cells(name, one)] for name, one in report.metrics.items()]
    if report.declined.n:
        both = [formats.percent(report.declined.base), formats.percent(report.declined.tuned)]
        metrics.append(["Declines unanswerable questions", *both, "", "", str(report.declined.n)])
    packs = [[name, *pack_cells(one), str(one.failed)] for name, one in report.packs.items()]
    graded = report.judge.grades if report.judge else {}
    grades = [[name, *grade_cells(one), str(one.failed)] for name, one in graded.items()]
    found = [
        Table(["metric", *columns], metrics),
        Table(["outside the domain", *columns, "failed"], packs),
        Table(["judge's grade, 1 to 5", *columns, "failed"], grades),
    ]
    return [found[0], *(one for one in found[1:] if one.rows)]


def metric_cells(metric: str, contrast: MetricContrast) -> list[str]:
    """Base, tuned, difference, CI and rows; differences of shares in percentage points."""
    if contrast.kind is not Kind.NUMBER:
        return pack_cells(contrast)
    if metric in COUNTS:
        return grade_cells(contrast)
    return _cells(contrast, partial(formats.number, digits=3), partial(formats.signed, digits=3))


def pack_cells(contrast: Contrast) -> list[str]:
    return _cells(contrast, formats.percent, formats.points)


def grade_cells(contrast: Contrast) -> list[str]:
    return _cells(contrast, formats.number, formats.signed)


def _cells(contrast: Contrast, value: Shown, change: Shown) -> list[str]:
    return [
        value(contrast.base),
        value(contrast.tuned),
        change(contrast.difference),
        interval_cell(contrast.difference_ci, change),
        str(contrast.n),
    ]


def interval_cell(interval: Interval | None, shown: Shown = formats.points) -> str:
    return f"{shown(interval.low)} to {shown(interval.high)}" if interval else formats.NOT_MEASURED


def unavailable(report: Report) -> list[str]:
    """A line for each reason why metrics are not available."""
    by_reason: dict[str, list[str]] = {}
    for name, why in report.unavailable.items():
        by_reason.setdefault(why, []).append(label(name))
    return [f"{', '.join(labels)}: not available: {why}" for why, labels in by_reason.items()]
