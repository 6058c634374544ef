"""One improvement of a run: what people said becomes rows, a model that learned them, and a comparison.

It is a run folder in the run (`improve/1`), whose base/ is the model that was served when it began. So every
command takes it, and `compare` holds the new model against the present one on the run's own test set.
"""

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from phi3flow.app.run_folder import preference_recipe, recipe_for, require_model, test_file
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.lineage import read_manifest
from phi3flow.core.served_model import IMPROVEMENTS, improvement_folder, served_run
from phi3flow.core.sides import BASE, TUNED
from phi3flow.core.validation import validated

Kind = Literal["preferences", "thumbs", "chats"]
METHODS = {"chats": "sft", "preferences": "dpo", "thumbs": "kto"}
SETTINGS = "improvement.json"


class Step(NamedTuple):
    """A verb with its arguments, and what is there once it has ended."""

    name: str
    words: tuple[str, ...]
    makes: Path

    @property
    def command(self) -> str:
        return shlex.join(["phi3flow", *self.words])


class _Settings(BaseModel):
    """What `improvement.json` tells of itself; the page shows the rest of it."""

    model_config = ConfigDict(extra="ignore")

    kind: Kind
    recipe: str
    model: Path
    replace_personal: bool


@dataclass(frozen=True)
class Improvement:
    """`model` is the folder to start from, `recipe` how to train it."""

    run: Path
    number: int
    kind: Kind
    recipe: str
    model: Path
    replace_personal: bool = False

    @property
    def folder(self) -> Path:
        return improvement_folder(self.run, self.number)

    @property
    def rows(self) -> Path:
        return self.folder / f"{self.kind}.jsonl"

    @property
    def method(self) -> str:
        """How `phi3flow train` learns such rows."""
        return METHODS[self.kind]

    def steps(self) -> Iterator[Step]:
        """The commands from what people said to the verdict, each after the one before."""
        personal = ["--replace-personal"] * self.replace_personal
        yield _step(
            "rows", self.rows, "feedback", self.run, "--kind", self.kind, *personal, "--out", self.rows
        )
        data, learned = self.folder / "data", ["--method", self.method, "--data", self.rows]
        if self.kind == "chats":
            learned = ["--data", data]
            yield _step("data", data, "prepare", *self._chats(), "--out", data)
        out = self.folder / TUNED.name
        started = ["--recipe", self.recipe, "--model", self.model, "--out", out]
        # With preferences the training also makes base/ and, last, data/.
        yield _step("training", out if self.kind == "chats" else data, "train", *learned, *started)
        yield _step("comparison", self.folder / "report.json", "compare", self.folder)

    def _chats(self) -> list[object]:
        """The run's own chats and the new ones, with the run's test set as it is."""
        own = test_file(self.run).parent
        settings = (read_manifest(own) or {}).get("settings") or {}
        near = settings.get("near_duplicates", "drop")
        files = [own / "train.jsonl", own / "val.jsonl", self.rows]
        return [*files, "--test", test_file(self.run), "--near-duplicates", near]

    @property
    def link(self) -> Path | None:
        """Where the folder's base/ leads; None where the training makes it."""
        return Path(self._from_here(self.model)) if self.kind == "chats" else None

    def _from_here(self, path: Path) -> str:
        """Seen from the improvement's folder, whatever the shell's was."""
        return os.path.relpath(path, self.folder)

    def begin(self) -> None:
        """Make the folder, with what this improvement is."""
        told = asdict(self) | {"run": str(self.run), "model": self._from_here(self.model)}
        steps = [
            {"name": step.name, "command": step.command, "makes": self._from_here(step.makes)}
            for step in self.steps()
        ]
        write_json(self.folder / SETTINGS, told | {"steps": steps})
        if self.link:
            (self.folder / BASE.name).symlink_to(self.link)


def _step(name: str, makes: Path, *words: object) -> Step:
    return Step(name, tuple(map(str, words)), makes)


def next_improvement(
    run: Path, kind: Kind, recipe: str | None, *, replace_personal: bool = False
) -> Improvement:
    """What would begin now. Raises BadInput for a run without a model or a test set."""
    model = served_run(run) / TUNED.name
    require_model(model.parent, TUNED.name)
    if not test_file(run).is_file():
        raise BadInput(
            f"{test_file(run)}: no such file: nothing could be compared",
            hint=f"phi3flow prepare CHATS.jsonl --out {run / 'data'}",
        )
    fits = recipe_for(model) if kind == "chats" else preference_recipe(model)
    number = max(_numbers(run), default=0) + 1
    return Improvement(run, number, kind, recipe or fits, model, replace_personal)


def latest_improvement(run: Path) -> Improvement | None:
    """The newest one that has begun. Raises BadInput for a broken file of it."""
    number = max(_numbers(run), default=None)
    if number is None:
        return None
    path = improvement_folder(run, number) / SETTINGS
    try:
        found = validated(_Settings, read_json(path), str(path))
    except ValueError as error:
        raise BadInput(f"{path}: not JSON: {error}", hint=f"rm -r {shlex.quote(str(path.parent))}") from None
    model = Path(os.path.normpath(path.parent / found.model))
    return Improvement(run, number, found.kind, found.recipe, model, found.replace_personal)


def remove_untrained(run: Path) -> None:
    """Remove the newest improvement if nothing of a model came of it."""
    latest = latest_improvement(run)
    trained = latest and [*latest.folder.glob(TUNED.name), *latest.folder.glob(f".{TUNED.name}.partial")]
    if latest and not trained:
        shutil.rmtree(latest.folder)


def _numbers(run: Path) -> list[int]:
    """Of the improvements that have begun."""
    begun = (run / IMPROVEMENTS).glob(f"*/{SETTINGS}")
    return [int(path.parent.name) for path in begun if path.parent.name.isdigit()]
