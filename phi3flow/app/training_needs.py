"""What a training would take: steps, time, memory and disk, before anything of it exists."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.app.improvement import Improvement
from phi3flow.app.run_folder import test_file
from phi3flow.core.jsonl import lines_of, parse_object
from phi3flow.core.lineage import read_manifest
from training.data.preferences import FEWEST
from training.recipes.recipe import Recipe, load_recipe

LEARNED = 0.8  # share of preferences that are not held out to watch the training
METRICS = "metrics.jsonl"


class Needs(NamedTuple):
    """`seconds` is None where no earlier training tells how long a step takes on this machine.

    `missing`: how many rows fewer there are than the method takes.

    Memory and disk are sentences: what is needed at most, and what is free.
    """

    recipe: str
    rows: int
    missing: int
    steps: int
    memory: str
    disk: str
    enough: bool
    seconds: float | None

    def told(self) -> dict[str, Any]:
        """For `--json`; `time` is `seconds` in words."""
        return self._asdict() | {"time": in_words(self.seconds) if self.seconds is not None else ""}

    def sentences(self) -> Iterator[str]:
        yield f"recipe {self.recipe}: {self.rows:,} rows, {self.steps:,} steps"
        if self.missing:
            yield f"too few rows: it takes {self.missing} more"
        if self.seconds is not None:
            yield f"time: about {in_words(self.seconds)}, as long a step as the present model's training took"
        yield f"at most {self.memory}; {self.disk}"


def needs_of(improvement: Improvement, new_rows: int) -> Needs:
    """Raises BadInput for a recipe or a model that cannot be used."""
    from training.estimate.footprint import Batch, disk_need, memory_need, model_size
    from training.estimate.machine import this_machine
    from training.loop.start import Run, empty_model
    from training.models.loading import load_tokenizer

    recipe, model = load_recipe(improvement.recipe, improvement.method), str(improvement.model)
    compared = recipe.learns_preferences
    rows = math.ceil(LEARNED * new_rows) if compared else new_rows + _own_rows(improvement)
    run = Run(improvement.rows, recipe, improvement.folder, "tuned", model, 0)
    size = model_size(empty_model(run, load_tokenizer(model)), recipe.lora)
    tokens = recipe.batch_size * recipe.max_length * (2 if compared else 1)  # every row as long as may be
    machine = this_machine()
    memory = memory_need(recipe, size, Batch(tokens, tokens, recipe.max_length), machine)
    disk = disk_need(recipe, size, improvement.folder)
    steps = recipe.optimiser_steps(rows)
    seconds = _seconds_of_a_step(improvement.model, recipe)
    return Needs(
        improvement.recipe,
        rows,
        max(0, FEWEST - new_rows) if compared else 0,
        steps,
        str(memory),
        str(disk),
        memory.is_met and disk.is_met,
        seconds * steps if seconds else None,
    )


def in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _own_rows(improvement: Improvement) -> int:
    train = test_file(improvement.run).with_name("train.jsonl")
    return sum(1 for line in lines_of(train) if line.strip()) if train.is_file() else 0


def _seconds_of_a_step(model: Path, recipe: Recipe) -> float | None:
    """Of the model's own training, where that had the same recipe but for its length."""
    before: dict[str, Any] = (read_manifest(model) or {}).get("recipe") or {}
    if not (model / METRICS).is_file() or _work(before) != _work(vars(recipe)):
        return None
    rows = [parse_object(line) for line in lines_of(model / METRICS) if line.strip()]
    last = next((row for row in reversed(rows) if row.get("step") and "seconds" in row), None)
    return float(last["seconds"]) / int(last["step"]) if last else None


def _work(recipe: dict[str, Any]) -> list[Any]:
    names = ("batch_size", "gradient_accumulation", "max_length", "packing")
    return [recipe.get("method") or "sft", *(recipe.get(name) for name in names)]
