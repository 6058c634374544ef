"""`report.json` for programs, `report.html` for people, `report.md` for pull requests, a table for terminals.

The page is one file that opens offline: style, charts and the loss curve are inside it. Whatever came from
a model or a user passes through Jinja's autoescaping.
"""

import base64
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evaluation.report import charts
from evaluation.report.comparison import Report
from evaluation.report.examples import pick_examples
from evaluation.report.markdown import grade_cells, pack_cells, render_markdown
from evaluation.rows import ScoredRow
from evaluation.statistics import formats
from evaluation.statistics.contrasts import UNBOUNDED, Contrast
from evaluation.statistics.intervals import Interval
from evaluation.verdict.decision import Decision
from evaluation.verdict.gate import WIN_RATE
from phi3flow.core.console import table
from phi3flow.core.files import write_json, write_text

Shown = Callable[[float | None], str]

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
REPORT_MD = "report.md"
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
    "log_likelihood": "Log-likelihood of the reference (nats a token)",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "gleu": "GLEU",
    "meteor": "METEOR",
    "f1_score": "F1 of the evaluation package",
    WIN_RATE: "Win rate by the judge's preferences",
}


def write_report(
    report: Report, rows: Sequence[ScoredRow], folder: Path, *, loss_curve: Path | None = None
) -> None:
    """Write `report.json`, `report.html` and `report.md`; `loss_curve` is a PNG to put inside the page."""
    page = render_html(report, rows, loss_curve=loss_curve)
    write_json(folder / REPORT_JSON, report.as_dict())
    write_text(folder / REPORT_HTML, page)
    write_text(
        folder / REPORT_MD,
        render_markdown(report, HEADLINES[report.verdict], _metric_rows(report), _unavailable(report)),
    )


def render_html(report: Report, rows: Sequence[ScoredRow], *, loss_curve: Path | None = None) -> str:
    """The page as text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "p_value": formats.p_value,
        "percent": formats.percent,
        "points": formats.points,
        "seconds": formats.seconds,
        "short_hash": formats.short_hash,
    }
    environment.globals |= {"labels": LABELS, "cells": _cells, "interval": _interval}
    environment.globals |= {"grade_cells": grade_cells, "pack_cells": pack_cells}
    return environment.from_string(_packaged("report.html.jinja")).render(
        report=report,
        headline=HEADLINES[report.verdict],
        style=Markup(_packaged("report.css")),  # noqa: S704 - our own file
        charts=_charts(report),
        examples=pick_examples(rows, report.gate.answer_metric),
        failures=[row for row in rows if row.base is None or row.tuned is None],
        loss_curve=_data_url(loss_curve) if loss_curve else None,
    )


def summary_table(report: Report) -> str:
    """For the terminal: the metrics, the reasons, and the verdict in the last line."""
    head = ["metric", "base", "tuned", "difference", "95 % CI", "rows"]
    lines = [table(head, _metric_rows(report)), *_unavailable(report), ""]
    if report.packs:
        packs = [pack_cells(name, result)[:-1] for name, result in report.packs.items()]
        lines += [table(["outside the domain", *head[1:]], packs), ""]
    if report.judge:
        if report.judge.grades:
            grades = [grade_cells(name, grade)[:-1] for name, grade in report.judge.grades.items()]
            lines += [table(["judge's grade, 1 to 5", *head[1:]], grades), ""]
        lines += [*report.judge.reasons, *report.judge.biases]
        lines += [f"verdict by the judge {report.judge.judge} alone: {report.judge.verdict}", ""]
    return "\n".join([*lines, *report.reasons, f"verdict: {report.verdict}"])


def _unavailable(report: Report) -> list[str]:
    return [f"{LABELS[name]}: not available: {why}" for name, why in report.unavailable.items()]


def _metric_rows(report: Report) -> list[list[str]]:
    rows = [[LABELS[name].lower(), *_cells(name, contrast)] for name, contrast in report.metrics.items()]
    if report.declined.n:
        both = [formats.percent(report.declined.base), formats.percent(report.declined.tuned)]
        rows.append(["declines questions without answer", *both, "", "", str(report.declined.n)])
    return rows


def _cells(metric: str, contrast: Contrast) -> list[str]:
    """The cells base, tuned, difference, interval, rows; differences of shares in points."""
    value, change = _formats(metric)
    return [
        value(contrast.base),
        value(contrast.tuned),
        change(contrast.difference),
        _interval(contrast.difference_ci, change),
        str(contrast.n),
    ]


def _formats(metric: str) -> tuple[Shown, Shown]:
    """How a mean of the metric is shown, and how a difference."""
    if metric == "log_likelihood":
        return formats.nats, formats.signed_nats
    if metric in UNBOUNDED:
        return formats.number, formats.signed
    return formats.percent, formats.points


def _interval(interval: Interval | None, shown: Callable[[float], str] = formats.points) -> str:
    return f"{shown(interval.low)} to {shown(interval.high)}" if interval else formats.NOT_MEASURED


def _charts(report: Report) -> dict[str, Markup | None]:
    """The charts by name; None where these rows allow none."""
    return {
        "scores": _scores_chart(report),
        "difference": _difference_chart(report),
        "slices": _slices_chart(report),
        "packs": _packs_chart(report),
        "judge": _judge_chart(report),
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
    return charts.difference_chart(
        "difference",
        title,
        report.difference,
        report.difference_ci,
        report.gate.margin,
    )


def _slices_chart(report: Report) -> Markup | None:
    dumbbells = [
        charts.Dumbbell(name, one.base, one.tuned)
        for name, one in report.slices.items()
        if one.base is not None and one.tuned is not None
    ]
    title = f"{LABELS[report.gate.answer_metric]} per slice, base and tuned, in percent"
    return charts.dumbbell_chart("slices", title, dumbbells) if dumbbells else None


def _packs_chart(report: Report) -> Markup | None:
    dumbbells = [
        charts.Dumbbell(name.capitalize(), one.base, one.tuned)
        for name, one in report.packs.items()
        if one.base is not None and one.tuned is not None
    ]
    title = "Share of questions outside the domain that base and tuned pass, in percent"
    return charts.dumbbell_chart("packs", title, dumbbells) if dumbbells else None


def _judge_chart(report: Report) -> Markup | None:
    if report.judge is None:
        return None
    rate = report.judge.preference
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
