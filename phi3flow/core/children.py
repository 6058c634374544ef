"""One child process, run to its end: bounded in time, and nothing of it left behind.

Servers that run side by side are `phi3flow.core.processes`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPORT_SECONDS = 5.0


def module_command(module: str, *arguments: object) -> list[str]:
    """`python -P -m MODULE ...` with this interpreter: a file in the current folder shadows no module."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def run_child(
    command: list[str],
    log: Path,
    *,
    request: Any = None,
    seconds: float = float("inf"),
    report: Callable[[], None] = lambda: None,
) -> int:
    """Run `command` with its output in `log`, and return its exit code.

    `request` is sent as JSON on standard input: keys belong there, never in a command line. `report` is
    called every five seconds. Raises TimeoutError after `seconds`. However this ends, the child's whole
    process group is killed: some libraries' workers survive their parent.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        assert child.stdin is not None  # noqa: S101 - it is a pipe; said for the type checker
        with contextlib.suppress(BrokenPipeError), child.stdin:  # it died at once: its exit code tells
            child.stdin.write(json.dumps(request).encode())
        deadline = time.monotonic() + seconds
        while child.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(min(REPORT_SECONDS, left))
                break
            report()
        return child.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):  # the whole group ended on its own
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def last_line(log: Path) -> str:
    """The last line of a log that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
