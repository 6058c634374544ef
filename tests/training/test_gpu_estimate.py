"""The estimate of memory on a GPU against what was measured on one (bench/LOG.md)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config

from training.estimate.footprint import Batch, memory_need, model_size
from training.estimate.machine import Machine
from training.recipes.recipe import Lora, Recipe

SHAPE = Path(__file__).parents[1] / "data" / "configs" / "phi3-mini-4k.json"
H200 = Machine(gpu=True, bf16=True, free=150 * 10**9)
FULL: dict[str, Any] = {}
LORA: dict[str, Any] = {"lora": Lora(), "weights": "bf16"}
COMPILED = {"attention": "varlen", "compile": True}
LIGER = {"attention": "varlen", "liger": True}
KEPT = {"gradient_checkpointing": False}


class Row(NamedTuple):
    """A run of Phi-3-mini's layer sizes and torch's `max_memory_allocated`, in 10^9 bytes."""

    settings: dict[str, Any]
    batch: Batch
    measured: float


def packed(rows):
    """Full rows of 2 048 tokens, laid end to end; 82 % of the tokens are answers."""
    return Batch(2048 * rows, int(2048 * rows * 0.82), 2048 * rows)


PADDED = Batch(1470, 1200, 512)
# One H200, torch 2.11, transformers 5.5.4, trl 1.16.0, peft 0.21.2; gradient checkpointing unless "kept".
TABLE = {
    "full-padded": Row(FULL | {"attention": "sdpa"}, PADDED, 61.2),
    "full-sdpa": Row(FULL | {"attention": "sdpa"}, packed(4), 62.6),
    "full-varlen": Row(FULL | {"attention": "varlen"}, packed(4), 62.4),
    "full-varlen-compile": Row(FULL | COMPILED, packed(4), 62.0),
    "full-varlen-compile-kept": Row(FULL | COMPILED | KEPT, packed(4), 85.3),
    "full-varlen-liger-kept": Row(FULL | LIGER | KEPT, packed(4), 86.8),
    "lora-padded": Row(LORA | {"attention": "sdpa"}, PADDED, 9.1),
    "lora-sdpa": Row(LORA | {"attention": "sdpa"}, packed(4), 12.1),
    "lora-varlen": Row(LORA | {"attention": "varlen"}, packed(4), 11.9),
    "lora-varlen-compile-kept-8": Row(LORA | COMPILED | KEPT, packed(8), 79.8),
    "lora-varlen-liger-kept-8": Row(LORA | LIGER | KEPT, packed(8), 80.6),
}


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(Phi3Config(**json.loads(SHAPE.read_text())))


@pytest.mark.parametrize("name", TABLE)
def test_the_estimate_is_within_15_percent_of_the_measurement(name, model):
    settings, batch, measured = TABLE[name]
    recipe = Recipe(
        **{"steps": 1, "batch_size": 4, "learning_rate": 1e-4, "precision": "bf16"}
        | {"gradient_checkpointing": True}
        | settings
    )
    need = memory_need(recipe, model_size(model, recipe.lora), batch, H200)
    allocated = need.total - need.parts["workspace"]  # torch does not count the process's own part
    assert allocated / 1e9 == pytest.approx(measured, rel=0.15)
