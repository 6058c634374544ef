"""What is known about one limit of the gate, in words."""

from enum import Enum
from typing import NamedTuple


class Limit(Enum):
    """Where the whole 95 % CI lies: within the limit, on both sides of it, or beyond it."""

    KEPT = 1
    OPEN = 2
    BROKEN = 3
    NOT_ASKED = 4


class Finding(NamedTuple):
    """`repair` says what to do about a broken limit."""

    limit: Limit
    sentence: str
    repair: str = ""
