"""Child processes that do a piece of work and end, with a time limit, and leave no process behind.

For servers that run side by side see `phi3flow.core.service_stack`.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

REPORT_SECONDS = 5.0
KEYS = ENDPOINT_KEY, FLOW_KEY, ENCRYPTION_KEY = (
    "PHI3FLOW_ENDPOINT_KEY",
    "PHI3FLOW_FLOW_KEY",
    "PF_ENCRYPTION_KEY",
)
# What somebody's own code needs to start and to find its libraries and data. No key is among them.
HARMLESS = (
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("HF_HOME", "HF_HUB_OFFLINE", "NLTK_DATA", "SSL_CERT_FILE"),
)
_logger = logging.getLogger(__name__)


def module_command(module: str, *arguments: object) -> list[str]:
    """`python -P -m MODULE ...` with this interpreter; -P: the current folder cannot shadow it."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def without_keys() -> dict[str, str]:
    """This environment with our keys set to nothing, which is what a child then finds in .env, too."""
    return {**os.environ, **dict.fromkeys(KEYS, "")}


def harmless_environment() -> dict[str, str]:
    """Of this environment only what holds no secret, for code that is not ours."""
    return {name: value for name, value in os.environ.items() if name in HARMLESS or name.startswith("LC_")}


class Worker(NamedTuple):
    """A child process and this side's end of a connection to it."""

    process: "subprocess.Popen[bytes]"
    connection: "Connection"


def start_worker(module: str) -> Worker:
    """`python -m MODULE FD`, FD being its end of the connection, which ends with either process.

    In a session of its own: a signal to this process's group must let its answers finish.
    """
    from multiprocessing import Pipe

    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            module_command(module, theirs.fileno()),
            env=without_keys(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Worker(process, ours)


@contextlib.contextmanager
def child(
    command: list[str], log: Path, request: Any = None, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A started `command` with its output in `log`, killed with its process group at the end.

    The group, because the workers of some libraries survive their parent. `request` goes as JSON to standard
    input: keys belong there, never in a command line, and the environment (by default `without_keys`) has
    none of ours.
    """
    _logger.debug("running %s, its output in %s", command, log)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=without_keys() if environment is None else environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it exited at once: see its exit code
            process.stdin.write(json.dumps(request).encode())
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # the whole group ended on its own
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_child(
    command: list[str],
    log: Path,
    *,
    request: Any = None,
    seconds: float = float("inf"),
    report: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `command` as a `child` to its end, and return its exit code.

    Calls `report` every five seconds. Raises TimeoutError after `seconds`.
    """
    with child(command, log, request, environment) as process:
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(REPORT_SECONDS, left))
                break
            report()
        return process.returncode


def last_line(log: Path) -> str:
    """The last line of a log that is not blank."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "no output")
