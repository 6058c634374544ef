"""The few SVG shapes the charts are made of. x is in percent of the page's width, y in pixels."""

from collections.abc import Sequence

from markupsafe import Markup

EDGE = 1.5  # percent kept free at both ends, for round ends and tick labels


def x_of(share: float) -> float:
    """Where a share of 0..1 lies, in percent of the width."""
    return EDGE + (100 - 2 * EDGE) * min(max(share, 0.0), 1.0)


def chart(name: str, title: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    """A labelled picture; screen readers hear the title and the description."""
    return Markup(
        '<svg role="img" width="100%" height="{height}" aria-labelledby="{name}-title {name}-desc">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>{parts}</svg>'
    ).format(name=name, title=title, description=description, height=height, parts=Markup("").join(parts))


def rect(x1: float, x2: float, y: float, style: str) -> Markup:
    return Markup('<rect class="{}" x="{:.2f}%" y="{}" width="{:.2f}%" height="16" rx="4"/>').format(
        style, x1, y, x2 - x1
    )


def line(x1: float, x2: float, y1: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>').format(
        style, x1, x2, y1, y2
    )


def dot(x: float, y: float, style: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.2f}%" cy="{}" r="7"/>').format(style, x, y)


def text(x: float, y: float, text: str, style: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, text
    )
