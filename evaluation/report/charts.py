"""Charts as inline SVG, without scripts.

Positions along x are percentages of whatever width the page has, so text keeps its size on a phone.
Colours are classes of `report.css`, so charts follow dark mode.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from evaluation.statistics.formats import percent, points
from evaluation.statistics.intervals import Interval

_EDGE = 1.5  # percent of the width kept free at both ends, for round ends and tick labels
_ROW = 58  # pixels: a line of text above a bar
_AXIS = 26
_LABEL_LETTERS = 22  # more would overlap the numbers on a phone


class Bar(NamedTuple):
    """One model's share (0..1) with its interval; `style` is `base` or `tuned`."""

    label: str
    value: float
    interval: Interval | None
    style: str


class Dumbbell(NamedTuple):
    """Both models' shares on one slice."""

    label: str
    base: float
    tuned: float


def bar_chart(name: str, title: str, bars: Sequence[Bar]) -> Markup:
    """Shares from 0 to 100 % as bars, each with its 95 % CI as a whisker."""
    height = _ROW * len(bars)
    parts = [_bar(bar, top=_ROW * i) for i, bar in enumerate(bars)]
    said = "; ".join(f"{bar.label} {percent(bar.value)}{_said_interval(bar.interval)}" for bar in bars)
    return _chart(name, title, said, height + _AXIS, [*parts, _share_axis(height)])


def _bar(bar: Bar, top: float) -> Markup:
    y = top + 28
    shown = percent(bar.value)
    if bar.interval:
        shown += f"  ({100 * bar.interval.low:.1f} to {100 * bar.interval.high:.1f})"
    return Markup("").join(
        [
            _text(_EDGE, top + 18, bar.label, "label"),
            _text(100 - _EDGE, top + 18, shown, "value", anchor="end"),
            _rect(_x_of(0), _x_of(1), y, "track"),
            _rect(_x_of(0), _x_of(bar.value), y, bar.style),
            _whisker(bar.interval, y + 8) if bar.interval else Markup(""),
        ]
    )


def dumbbell_chart(name: str, title: str, rows: Sequence[Dumbbell]) -> Markup:
    """Base and tuned as two dots on one line per slice."""
    height = _ROW * len(rows)
    parts = [_dumbbell(row, top=_ROW * i) for i, row in enumerate(rows)]
    said = "; ".join(f"{row.label}: base {percent(row.base)}, tuned {percent(row.tuned)}" for row in rows)
    return _chart(name, title, said, height + _AXIS, [*parts, _share_axis(height)])


def _dumbbell(row: Dumbbell, top: float) -> Markup:
    y = top + 36
    base, tuned = _x_of(row.base), _x_of(row.tuned)
    return Markup("").join(
        [
            _text(_EDGE, top + 18, _short(row.label), "label"),
            _text(
                100 - _EDGE, top + 18, f"{percent(row.base)} → {percent(row.tuned)}", "value", anchor="end"
            ),
            _line(_x_of(0), _x_of(1), y, y, "track"),
            _line(base, tuned, y, y, "better" if row.tuned >= row.base else "worse"),
            _dot(base, y, "base"),
            _dot(tuned, y, "tuned"),
        ]
    )


def difference_chart(name: str, title: str, difference: float, interval: Interval, margin: float) -> Markup:
    """The paired difference with its CI, and the margin."""
    low, high = _around(min(interval.low, margin, 0), max(interval.high, margin, 0))

    def x(value: float) -> float:
        return _x_of((value - low) / (high - low))

    y, bottom = 52, 84
    parts = [
        Markup('<rect class="promoting" x="{:.2f}%" y="24" width="{:.2f}%" height="{}"/>').format(
            x(margin), x(high) - x(margin), bottom - 24
        ),
        _line(x(low), x(high), bottom, bottom, "axis"),
        *[_tick(x(value), bottom, points(value)) for value in _ticks(low, high)],
        _line(x(margin), x(margin), 24, bottom, "margin"),
        _text(x(margin), 16, f"margin {points(margin)}", "margin-label", anchor=_anchor(x(margin))),
        _line(x(interval.low), x(interval.high), y, y, "interval"),
        *[_line(x(end), x(end), y - 8, y + 8, "interval") for end in interval],
        _dot(x(difference), y, "tuned"),
    ]
    said = f"{points(difference)} points{_said_interval(interval)}; margin {points(margin)} points"
    return _chart(name, title, said, bottom + _AXIS, parts)


def _around(low: float, high: float) -> Interval:
    room = max(high - low, 0.02) * 0.12
    return Interval(max(-1.0, low - room), min(1.0, high + room))


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_LETTERS else label[: _LABEL_LETTERS - 1] + "…"


def _ticks(low: float, high: float) -> list[float]:
    """Round values between the ends, with the smallest step that gives at most five."""
    steps = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)
    step = next((s for s in steps if (high - low) / s <= 5), 1.0)
    first, last = int(-(-low // step)), int(high // step)
    return [k * step for k in range(first, last + 1)]


def _anchor(x: float) -> str:
    return "start" if x < 20 else "end" if x > 80 else "middle"


def _said_interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f" (95 % CI {100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _share_axis(y: float) -> Markup:
    return Markup("").join(_tick(_x_of(k / 4), y + 2, f"{25 * k}") for k in range(5))


def _tick(x: float, y: float, label: str) -> Markup:
    anchor = "start" if x < 3 else "end" if x > 97 else "middle"
    return _line(x, x, y, y + 5, "axis") + _text(x, y + 20, label, "tick", anchor=anchor)


def _whisker(interval: Interval, y: float) -> Markup:
    """Drawn twice, first wider in the page's colour, for contrast on the bar and beside it."""
    low, high = _x_of(interval.low), _x_of(interval.high)
    lines = [(low, high, y, y), (low, low, y - 5, y + 5), (high, high, y - 5, y + 5)]
    return Markup("").join(_line(*ends, style) for style in ("casing", "whisker") for ends in lines)


def _x_of(share: float) -> float:
    """Where a share of 0..1 lies, in percent of the width."""
    return _EDGE + (100 - 2 * _EDGE) * min(max(share, 0.0), 1.0)


def _chart(name: str, title: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    """An SVG with a title and a description for screen readers."""
    return Markup(
        '<svg role="img" width="100%" height="{height}" aria-labelledby="{name}-title {name}-desc">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>{parts}</svg>'
    ).format(name=name, title=title, description=description, height=height, parts=Markup("").join(parts))


def _rect(x1: float, x2: float, y: float, style: str) -> Markup:
    return Markup('<rect class="{}" x="{:.2f}%" y="{}" width="{:.2f}%" height="16" rx="4"/>').format(
        style, x1, y, x2 - x1
    )


def _line(x1: float, x2: float, y1: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>').format(
        style, x1, x2, y1, y2
    )


def _dot(x: float, y: float, style: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.2f}%" cy="{}" r="7"/>').format(style, x, y)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, text
    )
