"""A command in the background that outlives who started it: `job.json` and `job.log` in a folder tell of it.

A small process waits for the command and writes down its exit code. Both are one process group, so that a
Ctrl-C from afar reaches the command as it would in a terminal.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.child_process import module_command, without_keys
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json, write_json
from phi3flow.core.folder_lock import writing
from phi3flow.core.polling import poll

JOB, LOG = "job.json", "job.log"
START_SECONDS, POLL_SECONDS = 60.0, 0.05
TAIL_BYTES = 16_384
CLOCK_SECONDS = 5.0  # the system's clock may be set meanwhile, and a new process gets an old id much later


class Job(NamedTuple):
    """`pid` is the process that waits, and its group; times are Unix times, `born` that of the process.

    `exit_code` is None while it runs, and for good where the process that waits was killed.
    """

    command: list[str]
    pid: int
    born: float
    ended: float | None = None
    exit_code: int | None = None

    @property
    def is_running(self) -> bool:
        now = _born(self.pid) if self.exit_code is None else None
        return now is not None and abs(now - self.born) < CLOCK_SECONDS


def job_in(folder: Path) -> Job | None:
    """The job that was started last in `folder`; None where there is none or its file is broken."""
    try:
        return Job(**read_json(folder / JOB))
    except (OSError, ValueError, TypeError):
        return None


def start(folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Job:
    """Start `command` with its output in `folder`'s log. Its environment has none of our keys.

    Raises BadInput while another job runs there, Phi3flowError if it cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / JOB):
        if (running := job_in(folder)) and running.is_running:
            raise BadInput(
                f"{folder}: a job runs there already, process {running.pid}", hint="wait for it, or stop it"
            )
        (folder / JOB).unlink(missing_ok=True)
        with (folder / LOG).open("wb") as log:
            waiting = subprocess.Popen(
                module_command("phi3flow.core.background", folder.resolve(), *command),
                env={**without_keys(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _started(folder, waiting)


def _started(folder: Path, waiting: "subprocess.Popen[bytes]") -> Job:
    def begun_or_ended() -> bool | None:
        return (folder / JOB).exists() or waiting.poll() is not None or None

    with suppress(TimeoutError):
        poll(begun_or_ended, seconds=START_SECONDS, first=POLL_SECONDS, longest=POLL_SECONDS)
    if job := job_in(folder):
        return job
    raise Phi3flowError(f"{folder}: the job cannot be started", hint=f"its log is {folder / LOG}")


def stop(folder: Path) -> None:
    """What Ctrl-C does in a terminal: a training saves a checkpoint first. Does nothing without a job."""
    if (job := job_in(folder)) and job.is_running:
        os.killpg(job.pid, signal.SIGINT)


def last_lines(folder: Path, count: int) -> list[str]:
    """The newest lines of the job's log that are not blank."""
    try:
        with (folder / LOG).open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-count:]


def _born(pid: int) -> float | None:
    """When the process with this id began; None where none runs, a zombie neither."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _wait(folder: Path, command: list[str]) -> None:
    signal.signal(signal.SIGINT, lambda *_: None)  # it is for the command, whose exit code tells of it
    process = subprocess.Popen(command)
    job = Job(command, os.getpid(), _born(os.getpid()) or 0.0)
    write_json(folder / JOB, job._asdict())
    code = process.wait()
    write_json(folder / JOB, job._replace(exit_code=code, ended=time.time())._asdict())


if __name__ == "__main__":
    _wait(Path(sys.argv[1]), sys.argv[2:])
