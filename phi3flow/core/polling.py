"""Poll until a result is there."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


def poll(
    look: Callable[[], T | None],
    *,
    seconds: float = float("inf"),
    first: float = FIRST_PAUSE,
    longest: float = LONGEST_PAUSE,
) -> T:
    """Call `look` until it returns something other than None, and return that.

    Pauses grow by half from `first` to `longest` seconds. Raises TimeoutError after `seconds`.
    """
    deadline, pause = time.monotonic() + seconds, first
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
    return found
