"""Waiting for what another thread or process is about to do."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Return as soon as it holds; AssertionError when it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s"
        time.sleep(0.01)
