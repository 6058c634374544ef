"""`report.json` for programs, `report.html` for people, `report.md` for pull requests, a table for terminals.

The page is one file that opens offline: style, charts and the loss curve are inside it. Text of models and
users passes through Jinja's autoescaping.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluation.report.comparison import Report
from evaluation.report.examples import groups_of, word_diff
from evaluation.report.tables import (
    grade_cells,
    headline,
    interval_cell,
    label,
    metric_cells,
    pack_cells,
    tables,
    tiles,
    unavailable,
)
from evaluation.scored_rows import ScoredRow
from evaluation.statistics import formats
from evaluation.statistics.intervals import Interval
from evaluation.statistics.scores import Column
from phi3flow.core.console import table
from phi3flow.core.files import as_json, write_texts

_EDGE = 1.5  # percent of a chart's width kept free at both ends, for round ends and tick labels
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)  # between the ticks of an axis
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


class Training(NamedTuple):
    """What the page tells of the tuned model's training: the loss as a PNG, and what became of long chats.

    `long_chats` are the counts of each split with chats of more than `max_length` tokens, to which `rule` was
    applied.
    """

    loss_curve: Path
    long_chats: Mapping[str, Mapping[str, int]]
    max_length: int
    rule: str

    @property
    def picture(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.loss_curve.read_bytes()).decode()


class Axis(NamedTuple):
    """Where a chart shows the values from `low` to `high`; positions are percentages of its width."""

    low: float
    high: float
    left: float = _EDGE
    right: float = 100 - _EDGE

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round values between the ends, with the smallest step that gives at most five."""
        step = next((step for step in _STEPS if (self.high - self.low) / step <= 5), 1.0)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def difference_axis(interval: Interval, margin: float) -> Axis:
    """Holds the interval, the margin and 0, with room on both sides."""
    low, high = min(interval.low, margin, 0), max(interval.high, margin, 0)
    room = max(high - low, 0.02) * 0.12
    return Axis(max(-1.0, low - room), min(1.0, high + room))


def write_report(
    report: Report,
    rows: Sequence[ScoredRow],
    folder: Path,
    *,
    training: Training | None = None,
    columns: Mapping[str, Column] | None = None,
) -> list[Path]:
    """Write the report in three formats, all or none, and return the files; `training` goes into the page.

    `columns` are the metrics that something outside measured, one of which may decide.
    """
    page = render_html(report, rows, training=training, columns=columns)
    texts = {
        "report.json": as_json(report.as_dict()),
        "report.html": page,
        "report.md": render_markdown(report),
    }
    files = {folder / name: text for name, text in texts.items()}
    write_texts(files)
    return list(files)


def render_html(
    report: Report,
    rows: Sequence[ScoredRow],
    *,
    training: Training | None = None,
    columns: Mapping[str, Column] | None = None,
) -> str:
    """The page as text."""
    environment = _environment(escape_html=True)
    cells = (label, metric_cells, pack_cells, grade_cells, interval_cell, word_diff, difference_axis)
    environment.globals |= {function.__name__: function for function in cells}
    return environment.get_template("report.html.jinja").render(
        report=report,
        headline=headline(report),
        share_axis=Axis(0.0, 1.0),
        rows=rows,
        groups=groups_of(rows, report.gate.answer_metric, (columns or {}).get(report.gate.answer_metric)),
        tiles=tiles(report),
        failures=[row for row in rows if row.base is None or row.tuned is None],
        unavailable=unavailable(report),
        training=training,
    )


def render_markdown(report: Report) -> str:
    """`report.md`: verdict, reasons and tables."""
    page = _environment(escape_html=False).get_template("report.md.jinja")
    shown = page.render(
        report=report,
        headline=headline(report),
        tables=tables(report),
        unavailable=unavailable(report),
    )
    return shown.rstrip() + "\n"


def summary_table(report: Report) -> str:
    """For the terminal: the metrics, the reasons, and the verdict in the last line."""
    metrics, *others = (table(one.head, one.rows) for one in tables(report))
    lines = [metrics, *unavailable(report), ""]
    for other in others:
        lines += [other, ""]
    if judge := report.judge:
        lines += [*judge.reasons, *judge.biases]
        lines += [f"verdict by the judge {judge.judge} alone: {judge.verdict}", ""]
    notes = [f"note: {note}" for note in report.notes]
    notes += [] if report.primary_fit.fits else [f"note: {report.primary_fit.why}"]
    return "\n".join([*lines, *report.reasons, *notes, f"verdict: {report.verdict}"])


def _environment(*, escape_html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("evaluation.report", "."),
        autoescape=escape_html,  # noqa: S701 - Markdown has characters of its own to escape
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (formats.p_value, formats.percent, formats.points, formats.seconds, formats.short_hash)
    environment.filters |= {function.__name__: function for function in shown}
    environment.filters["escaped"] = _escaped_markdown
    return environment


def _escaped_markdown(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return " ".join(text.translate(_MARKDOWN).split())
