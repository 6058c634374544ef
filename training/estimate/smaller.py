"""What to change in a recipe whose run did not fit, and what the estimate tells of each change."""

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any

from training.estimate.footprint import ModelSize, largest_batch, memory_need
from training.estimate.free_space import size
from training.estimate.machine import Machine
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset


def smaller(recipe: Recipe, model: ModelSize, rows: "Dataset", machine: Machine) -> str:
    """Each change on its own, with the memory that a step then needs."""

    def needed(changed: Recipe) -> str:
        return size(memory_need(changed, model, largest_batch(changed, rows), machine).total)

    changes = [
        f"{_fields(change)} (about {needed(replace(recipe, **change))})" for change in _changes(recipe)
    ]
    told = ", or ".join(changes) or f"max_length = {recipe.max_length // 2}"
    return f"in the recipe {told}; now it is about {needed(recipe)}"


def _changes(recipe: Recipe) -> list[dict[str, Any]]:
    """The same steps with less memory."""
    changes: list[dict[str, Any]] = []
    if recipe.gradient_checkpointing is not True:
        changes.append({"gradient_checkpointing": True})
    half = recipe.batch_size // 2
    if half >= (2 if recipe.method == "kto" else 1):
        accumulation = ceil(recipe.gradient_accumulation * recipe.batch_size / half)
        changes.append({"batch_size": half, "gradient_accumulation": accumulation})
    return changes


def _fields(change: dict[str, Any]) -> str:
    return " and ".join(f"{name} = {str(value).lower()}" for name, value in change.items())
