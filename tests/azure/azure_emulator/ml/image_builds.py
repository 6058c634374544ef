"""The image of an environment: its conda file is read, and pip resolves its packages in a dry run.

Azure builds an image for the first job or deployment that names an environment; both fail where it cannot.
Nothing is built here: jobs and containers have the packages of the emulator's own Python.
"""

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from azure_emulator.arm.store import Store
from azure_emulator.endpoints.workers import Workers
from azure_emulator.front.wire import Document

BUILT = "images"
WATCH_SECONDS = 0.1
DRY_RUN = ("-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--retries", "1")
NO_INDEX = "after connection broken"  # as pip warns before it gives up


class BuildFailed(Exception):
    """Why there is no image: what is wrong in the file, or what pip says."""


class ImageBuilds:
    """Each environment is built once. `resolve` asks a package index, which takes a network and minutes."""

    def __init__(self, store: Store, workers: Workers, *, resolve: bool) -> None:
        self._store, self._workers, self._resolve = store, workers, resolve
        self._environment = dict(os.environ)  # of who starts the emulator: the way to the index
        self._lock = threading.Lock()

    def build(self, environment_id: str, log: Path, go_on: Callable[[], None]) -> None:
        """Write `log`. Raise BuildFailed, and whatever `go_on` raises: it is called until pip has ended."""
        environment = self._store.get(environment_id) if environment_id else None
        conda = environment["properties"].get("condaFile") if environment else None
        if not conda:
            return
        with self._lock:
            if self._store.read(BUILT, environment_id.lower()) is None:
                packages = list(_packages(json.loads(conda)))
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(self._resolved(packages, log, go_on))
                self._store.write(BUILT, environment_id.lower(), {})

    def _resolved(self, packages: list[str], log: Path, go_on: Callable[[], None]) -> str:
        """What the log says at the end."""
        if not self._resolve:
            return "The packages were not resolved: the emulator runs without --resolve.\n"
        code = self._dry_run(packages, log, go_on)
        told = log.read_text(errors="replace")
        if code and NO_INDEX in told:
            return f"{told}The packages were not resolved: no package index answers.\n"
        if code:
            raise BuildFailed(next(line for line in told.splitlines() if line.startswith("ERROR")))
        return f"{told}pip resolves the packages.\n"

    def _dry_run(self, packages: list[str], log: Path, go_on: Callable[[], None]) -> int:
        nothing_here = str(log.with_name("target"))  # else what is installed here would count
        command = [sys.executable, *DRY_RUN, "--target", nothing_here, *packages]
        pip = self._workers.start(command, environment=self._environment, folder=log.parent, log=log)
        try:
            while (code := pip.poll()) is None:
                go_on()
                time.sleep(WATCH_SECONDS)
            return code
        finally:
            self._workers.stop(pip)


def _packages(conda: Document | None) -> Iterator[str]:
    """What pip is given. Raise BuildFailed for a file that conda would refuse."""
    wanted = (conda or {}).get("dependencies")
    if not isinstance(wanted, list):
        raise BuildFailed("The conda file has no list of dependencies.")
    for line in (line for one in wanted if isinstance(one, dict) for line in one.get("pip") or []):
        if line.startswith("-"):  # an option of pip's
            yield from shlex.split(line)
            continue
        try:
            yield str(Requirement(line))
        except InvalidRequirement as error:
            raise BuildFailed(f"The conda file names no package by '{line}': {error}") from error
