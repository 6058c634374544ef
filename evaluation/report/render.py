"""`report.json` for programs, `report.html` for people, `report.md` for pull requests, a table for terminals.

The page is one file that opens offline: style, charts and the loss curve are inside it. Text of models and
users passes through Jinja's autoescaping.
"""

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evaluation.judge.pairwise_summary import Judging
from evaluation.report import charts
from evaluation.report.comparison import Report
from evaluation.report.examples import pick_examples
from evaluation.report.tables import (
    HEADLINES,
    LABELS,
    grade_cells,
    interval_cell,
    metric_cells,
    pack_cells,
    render_markdown,
    tables,
    unavailable,
)
from evaluation.rows import ScoredRow
from evaluation.statistics import formats
from evaluation.statistics.contrasts import Contrast
from evaluation.verdict.gate import WIN_RATE
from phi3flow.core.console import table
from phi3flow.core.files import write_json, write_text

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
REPORT_MD = "report.md"


def write_report(
    report: Report, rows: Sequence[ScoredRow], folder: Path, *, loss_curve: Path | None = None
) -> None:
    """Write `report.json`, `report.html` and `report.md`; `loss_curve` is a PNG to put inside the page."""
    page = render_html(report, rows, loss_curve=loss_curve)
    write_json(folder / REPORT_JSON, report.as_dict())
    write_text(folder / REPORT_HTML, page)
    write_text(folder / REPORT_MD, render_markdown(report))


def render_html(report: Report, rows: Sequence[ScoredRow], *, loss_curve: Path | None = None) -> str:
    """The page as text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = (formats.p_value, formats.percent, formats.points, formats.seconds, formats.short_hash)
    environment.filters |= {function.__name__: function for function in shown}
    cells = (metric_cells, pack_cells, grade_cells, interval_cell)
    environment.globals |= {"labels": LABELS} | {function.__name__: function for function in cells}
    return environment.from_string(_packaged("report.html.jinja")).render(
        report=report,
        headline=HEADLINES[report.verdict],
        style=Markup(_packaged("report.css")),  # noqa: S704 - our own file
        charts=_charts(report),
        examples=pick_examples(rows, report.gate.answer_metric),
        failures=[row for row in rows if row.base is None or row.tuned is None],
        unavailable=unavailable(report),
        loss_curve=_data_url(loss_curve) if loss_curve else None,
    )


def summary_table(report: Report) -> str:
    """For the terminal: the metrics, the reasons, and the verdict in the last line."""
    metrics, *others = (table(one.head, one.rows) for one in tables(report))
    lines = [metrics, *unavailable(report), ""]
    for other in others:
        lines += [other, ""]
    if judge := report.judge:
        lines += [*judge.reasons, *judge.biases]
        lines += [f"verdict by the judge {judge.judge} alone: {judge.verdict}", ""]
    return "\n".join([*lines, *report.reasons, f"verdict: {report.verdict}"])


def _charts(report: Report) -> dict[str, Markup | None]:
    """The charts by name; None where there is nothing to draw."""
    return {
        "scores": _scores_chart(report),
        "difference": _difference_chart(report),
        "slices": _dumbbells(
            "slices",
            f"{LABELS[report.gate.answer_metric]} per slice, base and tuned, in percent",
            report.slices,
        ),
        "packs": _dumbbells(
            "packs",
            "Share of questions outside the domain that base and tuned pass, in percent",
            {name.capitalize(): pack for name, pack in report.packs.items()},
        ),
        "judge": _judge_chart(report.judge) if report.judge else None,
    }


def _scores_chart(report: Report) -> Markup | None:
    bars = [
        charts.Bar(label, score.exact_match, score.exact_match_ci, label.lower())
        for label, score in (("Base", report.base), ("Tuned", report.tuned))
        if score.exact_match is not None
    ]
    return charts.bar_chart("scores", "Share of exact matches, in percent", bars) if bars else None


def _difference_chart(report: Report) -> Markup | None:
    if report.difference is None or report.difference_ci is None:
        return None
    title = "Paired difference, tuned minus base, in percentage points"
    if report.gate.primary == WIN_RATE:
        title = "Tuned's win rate minus one half, in percentage points"
    margin = report.gate.margin
    return charts.difference_chart("difference", title, report.difference, report.difference_ci, margin)


def _dumbbells(name: str, title: str, contrasts: Mapping[str, Contrast]) -> Markup | None:
    dumbbells = [
        charts.Dumbbell(label, one.base, one.tuned)
        for label, one in contrasts.items()
        if one.base is not None and one.tuned is not None
    ]
    return charts.dumbbell_chart(name, title, dumbbells) if dumbbells else None


def _judge_chart(judge: Judging) -> Markup | None:
    rate = judge.preference
    bars = [
        charts.Bar(label, value, interval, "tuned")
        for label, value, interval in (
            ("Tuned wins", rate.win_rate, rate.win_rate_ci),
            ("At equal length", rate.length.win_rate, rate.length.win_rate_ci),
        )
        if value is not None
    ]
    return charts.bar_chart("judge", "Share of rows in which the judge prefers tuned", bars) if bars else None


def _data_url(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")


def _packaged(name: str) -> str:
    return files("evaluation.report").joinpath(name).read_text(encoding="utf-8")
