"""The report's tables as cells, for every format, and the page of Markdown for a pull request."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from evaluation.report.comparison import Report
from evaluation.statistics import formats
from evaluation.statistics.contrasts import UNBOUNDED, Contrast
from evaluation.statistics.intervals import Interval
from evaluation.verdict.decision import Decision
from evaluation.verdict.gate import WIN_RATE

Shown = Callable[[float | None], str]
HEADLINES = {
    Decision.PROMOTE: "Promote the tuned model",
    Decision.HOLD: "Hold: keep the base model",
    Decision.NOT_ENOUGH_DATA: "Not enough data to decide",
}
LABELS = {
    "exact_match": "Exact match",
    "token_f1": "Token F1",
    "answer_chars": "Answer length (characters)",
    "answer_tokens": "Answer length (tokens)",
    "log_likelihood": "Log-likelihood of the reference (nats per token)",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "gleu": "GLEU",
    "meteor": "METEOR",
    "f1_score": "F1 of the evaluation package",
    WIN_RATE: "Win rate by the judge's preferences",
}
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


class Table(NamedTuple):
    head: list[str]
    rows: list[list[str]]


def tables(report: Report) -> list[Table]:
    """Metrics, then packs and the judge's grades where there are any."""
    columns = ["base", "tuned", "difference", "95 % CI", "rows"]
    metrics = [[LABELS[name], *metric_cells(name, one)] for name, one in report.metrics.items()]
    if report.declined.n:
        both = [formats.percent(report.declined.base), formats.percent(report.declined.tuned)]
        metrics.append(["Declines questions without an answer", *both, "", "", str(report.declined.n)])
    packs = [[name, *pack_cells(one), str(one.failed)] for name, one in report.packs.items()]
    graded = report.judge.grades if report.judge else {}
    grades = [[name, *grade_cells(one), str(one.failed)] for name, one in graded.items()]
    found = [
        Table(["metric", *columns], metrics),
        Table(["outside the domain", *columns, "failed"], packs),
        Table(["judge's grade, 1 to 5", *columns, "failed"], grades),
    ]
    return [found[0], *(one for one in found[1:] if one.rows)]


def metric_cells(metric: str, contrast: Contrast) -> list[str]:
    """Base, tuned, difference, CI and rows; differences of shares in percentage points."""
    if metric == "log_likelihood":
        return _cells(contrast, formats.nats, formats.signed_nats)
    return grade_cells(contrast) if metric in UNBOUNDED else pack_cells(contrast)


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
        by_reason.setdefault(why, []).append(LABELS[name])
    return [f"{', '.join(labels)}: not available: {why}" for why, labels in by_reason.items()]


def render_markdown(report: Report) -> str:
    """`report.md`: verdict, reasons and tables."""
    return "\n".join([f"## {HEADLINES[report.verdict]}", "", *_markdown(report)]).rstrip() + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield from (f"- {_plain(reason)}" for reason in report.reasons)
    yield from ["", f"{report.answered} of {report.expected} lines answered, {report.failed} failed.", ""]
    metrics, *others = tables(report)
    yield from _markdown_table(metrics)
    if report.unavailable:
        yield from [*(f"- {_plain(line)}" for line in unavailable(report)), ""]
    if report.slices:
        head = [f"slice, {report.gate.answer_metric.replace('_', ' ')}", "base", "tuned", "rows"]
        rows = [
            [_plain(name), formats.percent(one.base), formats.percent(one.tuned), str(one.n)]
            for name, one in report.slices.items()
        ]
        yield from _markdown_table(Table(head, rows))
    for table in others:
        yield from _markdown_table(table)
    if judge := report.judge:
        told = " ".join(_plain(line) for line in [*judge.reasons, *judge.biases])
        yield f"Judge `{judge.judge}`: {judge.verdict.replace('_', ' ')}. {told}"
        addressed = sum(judge.addressed.values())
        yield f"{judge.failed} of {judge.expected} rows failed; {addressed} answers address the judge."


def _markdown_table(table: Table) -> list[str]:
    rule: Sequence[str] = ["---", *["---:"] * (len(table.head) - 1)]
    return [*("| " + " | ".join(row) + " |" for row in [table.head, rule, *table.rows]), ""]


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return " ".join(text.translate(_SPECIAL).split())
