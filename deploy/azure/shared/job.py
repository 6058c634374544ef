"""A command job as a step, and watching one until it ends.

The name follows from what the job computes, so a rerun finds the running or finished job. A failed or
cancelled one stays as it is: the next attempt has the next number.
"""

import io
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.polling import poll

EXPERIMENT = "phi3flow"
ENDED_BADLY = {"Failed", "Canceled", "NotResponding"}
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
            status = status_of(self.cloud, name)
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
    name: str,
    *,
    title: str,
    line: str,
    code: Path,
    environment: str,
    compute: str,
    inputs: Mapping[str, tuple[str, str]],
    outputs: Mapping[str, str],
    tags: Mapping[str, str],
    nodes: int = 1,
) -> Any:
    """The SDK's object for a job that runs `line` in a copy of `code`.

    `inputs` are Azure's type and path by name, `outputs` Azure's type by name. With several nodes, PyTorch's
    launcher starts a rank on each.
    """
    from azure.ai.ml import Input, Output, command

    return command(
        name=name,
        display_name=title,
        experiment_name=EXPERIMENT,
        code=str(code),
        command=line,
        environment=f"azureml:{environment}",
        compute=compute,
        instance_count=nodes,
        inputs={key: Input(type=kind, path=path) for key, (kind, path) in inputs.items()},
        outputs={key: Output(type=kind) for key, kind in outputs.items()},
        tags=dict(tags),
        distribution={"type": "PyTorch"} if nodes > 1 else None,
    )


def status_of(cloud: Cloud, name: str) -> str | None:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return str(cloud.ml.jobs.get(name).status)
    except ResourceNotFoundError:
        return None


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


def follow(cloud: Cloud, name: str, ask_to_cancel: Callable[[], bool]) -> None:
    """Watch a job until it is completed. Raises Phi3flowError when it fails, KeyboardInterrupt on Ctrl-C.

    The status is polled. The log comes from the SDK's stream, which breaks on some jobs: it is only shown.
    """
    tail = _Tail()
    with redirect_stdout(tail):
        streaming = threading.Thread(target=_stream, args=(cloud, name), daemon=True)
        streaming.start()
        try:
            status = _wait(cloud, name)
        except KeyboardInterrupt:
            _interrupted(cloud, name, ask_to_cancel)
            raise
        streaming.join(FIRST_POLL_SECONDS if status == "Completed" else LAST_POLL_SECONDS)
    if status != "Completed":
        log = "\n".join(f"  | {line}" for line in tail.lines if line.strip())
        raise Phi3flowError(
            f"job {name} ended as {status.lower()}" + (f"; the end of its log:\n{log}" if log else ""),
            f"{cloud.ml.jobs.get(name).studio_url} shows all of it; the same command tries again",
        )


def _stream(cloud: Cloud, name: str) -> None:
    try:
        cloud.ml.jobs.stream(name)
    except Exception as error:  # the job's status decides, not its log
        print(f"(the log stream ended: {type(error).__name__})")


def _wait(cloud: Cloud, name: str) -> str:
    shown = ""

    def look() -> str | None:
        nonlocal shown
        status = status_of(cloud, name) or "missing"
        if status != shown:
            say(f"job {name}: {status}")
            shown = status
        return status if status == "Completed" or status in ENDED_BADLY else None

    return poll(look)


def _interrupted(cloud: Cloud, name: str, ask_to_cancel: Callable[[], bool]) -> None:
    if ask_to_cancel():
        cloud.finish(cloud.ml.jobs.begin_cancel(name), f"cancelling job {name}")
        say(f"job {name} is cancelled")
    else:
        say(f"job {name} continues in Azure; the same command watches it again")
