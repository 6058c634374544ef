"""The report as a page of Markdown, for a pull request."""

from collections.abc import Callable, Iterator, Sequence

from evaluation.judge.grades import GradeContrast
from evaluation.judge.pairwise_summary import Judging
from evaluation.packs.pack_results import PackResult
from evaluation.report.comparison import Report
from evaluation.statistics import formats
from evaluation.statistics.intervals import Interval

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render_markdown(
    report: Report, headline: str, metric_rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()
) -> str:
    """`metric_rows` are the cells of the metrics table; `remarks` stand below it."""
    return "\n".join([f"## {headline}", "", *_body(report, metric_rows, remarks)]).rstrip() + "\n"


def _body(report: Report, metric_rows: Sequence[Sequence[str]], remarks: Sequence[str]) -> Iterator[str]:
    yield from (f"- {_plain(reason)}" for reason in report.reasons)
    yield from ["", f"{report.answered} of {report.expected} lines answered, {report.failed} failed.", ""]
    yield from _table(["metric", "base", "tuned", "difference", "95 % CI", "rows"], metric_rows)
    if remarks:
        yield from [*(f"- {_plain(remark)}" for remark in remarks), ""]
    if report.slices:
        rows = [
            [_plain(name), formats.percent(one.base), formats.percent(one.tuned), str(one.n)]
            for name, one in report.slices.items()
        ]
        yield from _table(
            [f"slice, {report.gate.answer_metric.replace('_', ' ')}", "base", "tuned", "rows"], rows
        )
    if report.packs:
        head = ["outside the domain", "base", "tuned", "difference", "95 % CI", "rows", "failed"]
        yield from _table(head, [pack_cells(name, result) for name, result in report.packs.items()])
    if report.judge:
        yield from _judge(report.judge)


def _judge(judge: Judging) -> Iterator[str]:
    if judge.grades:
        head = ["judge's grade, 1 to 5", "base", "tuned", "difference", "95 % CI", "rows", "failed"]
        yield from _table(head, [grade_cells(name, grade) for name, grade in judge.grades.items()])
    yield f"Judge `{judge.judge}`: {judge.verdict.replace('_', ' ')}. " + " ".join(
        map(_plain, [*judge.reasons, *judge.biases])
    )
    addressed = sum(judge.addressed.values())
    yield f"{judge.failed} of {judge.expected} rows failed; {addressed} answers address the judge."


def pack_cells(name: str, result: PackResult) -> list[str]:
    """The cells name, base, tuned, difference, interval, rows, failed."""
    return [
        name,
        formats.percent(result.base),
        formats.percent(result.tuned),
        formats.points(result.difference),
        _interval(result.difference_ci, formats.points),
        str(result.n),
        str(result.failed),
    ]


def grade_cells(name: str, grade: GradeContrast) -> list[str]:
    """The same cells for a judge's grade."""
    return [
        name,
        formats.number(grade.base),
        formats.number(grade.tuned),
        formats.signed(grade.difference),
        _interval(grade.difference_ci, formats.signed),
        str(grade.n),
        str(grade.failed),
    ]


def _interval(interval: Interval | None, shown: Callable[[float], str]) -> str:
    return f"{shown(interval.low)} to {shown(interval.high)}" if interval else formats.NOT_MEASURED


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [*("| " + " | ".join(row) + " |" for row in [head, rule, *rows]), ""]


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return " ".join(text.translate(_SPECIAL).split())
