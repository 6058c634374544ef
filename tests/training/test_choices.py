"""What "auto" becomes on which machine, and what the run says about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Phi3Config

from training.estimate.choices import COMPILING_PAYS, batches, settled
from training.estimate.footprint import model_size
from training.estimate.machine import Machine
from training.recipes.recipe import load_recipe

SHAPE = Path(__file__).parents[1] / "data" / "configs" / "phi3.5-mini.json"
CPU = Machine(gpu=False, bf16=True, free=24 * 10**9)
SMALL, LARGE = (Machine(gpu=True, bf16=True, free=free * 10**9) for free in (24, 84))
OLD = Machine(gpu=True, bf16=False, free=84 * 10**9)
LORA = load_recipe("phi3.5-mini-lora")
ROWS = Dataset.from_dict({"input_ids": [[1] * 2048] * 800, "labels": [[1] * 2048] * 800})


@pytest.fixture(scope="module")
def size():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Phi3Config(**json.loads(SHAPE.read_text())))
    return model_size(model, LORA.lora)


def chosen(recipe, size, machine):
    found = settled(recipe, size, ROWS, machine)
    return (found.recipe.attention, found.recipe.compile, found.recipe.gradient_checkpointing), found.why


def test_a_large_gpu_gets_the_fast_settings_and_says_why(size):
    choice, why = chosen(LORA, size, LARGE)
    assert choice == ("varlen", True, False)
    assert why[0] == "varlen attention (packed rows on a GPU)"
    assert why[1] == "layers compiled (600 batches)"
    assert why[2].startswith("activations kept (")
    assert why[2].endswith(" of 84.0 GB GPU memory)")


def test_a_small_gpu_recomputes_activations(size):
    choice, why = chosen(LORA, size, SMALL)
    assert choice == ("varlen", True, True)
    assert why[2].startswith("activations recomputed (kept, the run would need ")


def test_a_short_run_is_not_compiled(size):
    short = replace(LORA, steps=10, epochs=None)
    (_, compiled, _), why = chosen(short, size, LARGE)
    assert not compiled
    assert why[1] == f"layers not compiled (40 batches; it pays from {COMPILING_PAYS})"


@pytest.mark.parametrize(
    ("change", "machine"),
    [({}, CPU), ({}, OLD), ({"packing": False}, LARGE), ({"precision": "fp32"}, LARGE)],
    ids=["cpu", "no bf16", "padded", "fp32"],
)
def test_elsewhere_attention_and_layers_stay_as_they_are(size, change, machine):
    (attention, compiled, _), _ = chosen(replace(LORA, **change), size, machine)
    assert (attention, compiled) == ("sdpa", False)


def test_what_the_recipe_says_stays(size):
    asked = replace(LORA, attention="sdpa", compile=True, gradient_checkpointing=True)
    assert settled(asked, size, ROWS, LARGE) == (asked, [])


def test_batches_are_counted_over_epochs_and_accumulation():
    assert batches(LORA, 800) == 600
    assert batches(replace(LORA, epochs=None, steps=5), 800) == 20
