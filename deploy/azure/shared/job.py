"""A job as a step, and watching one until it ends.

The name follows from what the job computes, so a rerun finds the running or finished job. A failed or
cancelled one stays as it is: the next attempt has the next number.
"""

import io
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.azure.shared.assets import Asset, version_of
from deploy.azure.shared.plan import Action, Cost, Look, Step, carry_out, made
from deploy.azure.shared.problems import explaining, without_secrets
from deploy.azure.shared.session import Cloud, existing
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.polling import poll

EXPERIMENT = "phi3flow"
COMPLETED = "Completed"
ENDED_BADLY = {"Failed", "Canceled", "NotResponding"}
ENDED = {COMPLETED, *ENDED_BADLY}  # of Prompt flow's runs as well
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.5, 15.0
TAIL_LINES = 20


@dataclass(frozen=True)
class Job:
    """`identity` is the hash of everything that decides the result; `build` makes the SDK's job object."""

    cloud: Cloud
    prefix: str
    identity: str
    build: Callable[[str], Any]
    kind: str = "job"
    cost: Cost = "while it runs"

    @cached_property
    def _attempt(self) -> tuple[str, str | None]:
        """The name to use, and the status of the job that has it."""
        number = 1
        while True:
            name = f"{self.prefix}-{self.identity}-{number}"
            status = _status_of(self.cloud, name)
            if status not in ENDED_BADLY:
                return name, status
            number += 1

    @property
    def name(self) -> str:
        return self._attempt[0]

    def look(self) -> Look:
        status = self._attempt[1]
        return Look("create") if status is None else Look("keep", status.lower())

    def make(self) -> None:
        self.cloud.ml.jobs.create_or_update(self.build(self.name))


def command_job(
    cloud: Cloud,
    prefix: str,
    decided_by: Sequence[str],
    *,
    title: str,
    line: str,
    code: Path,
    environment: Asset,
    compute: str,
    inputs: Mapping[str, tuple[str, str]],
    outputs: Mapping[str, str],
    tags: Mapping[str, str],
    nodes: int = 1,
) -> Job:
    """A job that runs `line` in a copy of `code`; what else decides its result stands in `decided_by`.

    `inputs` are Azure's type and path by name, `outputs` Azure's type by name. With several nodes, PyTorch's
    launcher starts a rank on each.
    """
    whole_line = f"export PYTHONPATH=$PWD && {line}"  # a job starts in its code folder

    def build(name: str) -> Any:
        from azure.ai.ml import Input, Output, command

        return command(
            name=name,
            display_name=title,
            experiment_name=EXPERIMENT,
            code=str(code),
            command=whole_line,
            environment=f"azureml:{environment.name}",
            compute=compute,
            instance_count=nodes,
            inputs={key: Input(type=kind, path=path) for key, (kind, path) in inputs.items()},
            outputs={key: Output(type=kind) for key, kind in outputs.items()},
            tags=dict(tags),
            distribution={"type": "PyTorch"} if nodes > 1 else None,
        )

    return Job(cloud, prefix, version_of(*decided_by, whole_line), build)


def output_path(job: str, output: str) -> str:
    """The address of a folder that a job leaves."""
    return f"azureml://jobs/{job}/outputs/{output}/paths/"


def run_job(needs: Sequence[Step], job: Job, *, plan: bool) -> list[Action]:
    """Make what the job needs, submit it or find it, and watch it until it is completed.

    With `plan`, only say what would be done. Raises what `follow` raises.
    """
    actions = carry_out([*needs, job], plan=plan)
    if not plan:
        with explaining(f"job {job.name}", made(actions)):
            follow(job.cloud, job.name)
    return actions


def _status_of(cloud: Cloud, name: str) -> str | None:
    found = existing(cloud.ml.jobs.get, name)
    return None if found is None else str(found.status)


def watch(what: str, status: Callable[[], str | None], *, seconds: float = float("inf")) -> str:
    """Poll until a job or a run has ended, and say every change. Raises TimeoutError after `seconds`."""
    shown = ""

    def look() -> str | None:
        nonlocal shown
        now = status() or "missing"
        if now != shown:
            say(f"{what}: {now}")
            shown = now
        return now if now in ENDED else None

    return poll(look, seconds=seconds)


class _Tail(io.TextIOBase):
    """Prints a job's log on stderr and keeps its last lines."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.lines.append(line)
            print(f"  | {line}", file=sys.stderr, flush=True)
        return len(text)


def follow(cloud: Cloud, name: str, *, seconds: float = float("inf")) -> None:
    """Watch a job until it is completed. Raises Phi3flowError when it fails, KeyboardInterrupt on Ctrl-C.

    Raises TimeoutError after `seconds`.

    The status is polled. The log comes from the SDK's stream, which breaks on some jobs: it is only shown.
    """
    tail = _Tail()
    with redirect_stdout(tail):
        streaming = threading.Thread(target=_stream, args=(cloud, name), daemon=True)
        streaming.start()
        try:
            status = watch(f"job {name}", lambda: _status_of(cloud, name), seconds=seconds)
        except KeyboardInterrupt:
            _interrupted(cloud, name)
            raise
        streaming.join(FIRST_POLL_SECONDS if status == COMPLETED else LAST_POLL_SECONDS)
    if status != COMPLETED:
        log = "\n".join(f"  | {line}" for line in tail.lines if line.strip())
        raise Phi3flowError(
            f"job {name} ended as {status.lower()}" + (f"; the end of its log:\n{log}" if log else ""),
            f"{cloud.ml.jobs.get(name).studio_url} shows all of it; the same command tries again",
        )


def _stream(cloud: Cloud, name: str) -> None:
    try:
        cloud.ml.jobs.stream(name)
    except Exception as error:  # the job's status decides, not its log
        print(f"(the log stream ended: {_why(error)})")


def _why(error: Exception) -> str:
    """Azure's sentence on a failed job, such as that its image could not be built; else the error's type."""
    told = re.search(r'"message": ("(?:[^"\\]|\\.)*")', str(error))
    return without_secrets(str(json.loads(told[1]))) if told else type(error).__name__


def _interrupted(cloud: Cloud, name: str) -> None:
    if _wants_it_cancelled():
        cloud.finish(cloud.ml.jobs.begin_cancel(name), f"cancelling job {name}")
        say(f"job {name} is cancelled")
    else:
        say(f"job {name} continues in Azure; the same command watches it again")


def _wants_it_cancelled() -> bool:
    if not sys.stdin.isatty():
        return False
    print("cancel the job in Azure, too? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
