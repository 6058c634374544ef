"""Numbers formatted for every report."""

import re
from typing import Any

NOT_MEASURED = "\u2013"
_NO_BREAK = "\u00a0"


def percent(share: float | None) -> str:
    """A share of 0..1 in percent."""
    return NOT_MEASURED if share is None else f"{100 * share:.1f}{_NO_BREAK}%"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign; zero has no sign."""
    if value is None:
        return NOT_MEASURED
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points."""
    return signed(None if difference is None else 100 * difference)


def seconds(value: float | None) -> str:
    """A duration."""
    return NOT_MEASURED if value is None else f"{value:.2f}{_NO_BREAK}s"


def number(value: float | None, digits: int = 1) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value, down to `<0.0001`."""
    if p is None:
        return NOT_MEASURED
    return f"{p:.4f}" if p >= 0.0001 else f"<{_NO_BREAK}0.0001"


def counted(n: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def short_hash(value: Any) -> str:
    """Text with every sha256 cut to its first twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", str(value))
