"""The improvements of a run as the page shows them: their commands, how far they are, their verdict."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.core.served_model import IMPROVEMENTS
from ui.store.latest_report import REPORT, json_in

SETTINGS = "improvement.json"
STEP = re.compile(r"^\d+/\d+ \w+: ")  # as `phi3flow improve` begins one
COUNTED = re.compile(r"^\s*([0-9,]+) of ([0-9,]+) ")  # as `phi3flow.core.progress` writes it


class ShownStep(NamedTuple):
    name: str
    command: str
    is_done: bool


class ShownImprovement(NamedTuple):
    """`model` is the folder that it started from."""

    number: int
    folder: Path
    kind: str
    model: str
    steps: list[ShownStep]

    @property
    def is_done(self) -> bool:
        return (self.folder / REPORT).is_file()

    @property
    def report(self) -> dict[str, Any]:
        return json_in(self.folder / REPORT)


def latest_shown(run: Path) -> ShownImprovement | None:
    """The newest improvement that has begun; None where there is none."""
    found = [path for path in (run / IMPROVEMENTS).glob(f"*/{SETTINGS}") if path.parent.name.isdigit()]
    path = max(found, key=lambda path: int(path.parent.name), default=None)
    told = json_in(path) if path else {}
    if not path or not told:
        return None
    folder = path.parent
    steps = [
        ShownStep(step["name"], step["command"], (folder / step["makes"]).exists()) for step in told["steps"]
    ]
    return ShownImprovement(
        int(folder.name), folder, told["kind"], os.path.normpath(folder / told["model"]), steps
    )


class Progress(NamedTuple):
    """How far the step that runs is, as a share and in its own words; nothing until it tells."""

    share: float = 0.0
    words: str = ""


def progress_in(log: Iterable[str]) -> Progress:
    """From the newest line that counts, of the newest step."""
    newest = Progress()
    for line in log:
        if STEP.match(line):
            newest = Progress()
        if match := COUNTED.match(line):
            done, total = (int(count.replace(",", "")) for count in match.groups())
            newest = Progress(min(1.0, done / total) if total else 0.0, line.strip())
    return newest
