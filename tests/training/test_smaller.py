"""What a run that did not fit is told: the fields to change, and what the estimate says of each."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Phi3Config

from training.estimate.footprint import model_size
from training.estimate.machine import Machine
from training.estimate.smaller import smaller
from training.recipes.recipe import load_recipe

SHAPE = Path(__file__).parents[1] / "data" / "configs" / "phi3.5-mini.json"
GPU = Machine(gpu=True, bf16=True, free=84 * 10**9)
ROWS = Dataset.from_dict({"input_ids": [[1] * 2048] * 8, "labels": [[1] * 2048] * 8})
LORA = replace(
    load_recipe("phi3.5-mini-lora"), attention="varlen", compile=False, gradient_checkpointing=False
)


@pytest.fixture(scope="module")
def size():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Phi3Config(**json.loads(SHAPE.read_text())))
    return model_size(model, LORA.lora)


def told(recipe, size):
    """The sentence without its amounts, and the amounts."""
    sentence = smaller(recipe, size, ROWS, GPU)
    return re.sub(r"[\d.]+ GB", "N GB", sentence), [float(n) for n in re.findall(r"([\d.]+) GB", sentence)]


def test_each_change_takes_less_than_now(size):
    sentence, (recomputed, half, now) = told(replace(LORA, batch_size=3, gradient_accumulation=4), size)
    assert sentence == (
        "in the recipe gradient_checkpointing = true (about N GB), "
        "or batch_size = 1 and gradient_accumulation = 12 (about N GB); now it is about N GB"
    )
    assert recomputed < half < now


def test_what_is_done_already_is_not_advised(size):
    sentence, (half, now) = told(replace(LORA, batch_size=4, gradient_checkpointing=True), size)
    assert sentence.startswith("in the recipe batch_size = 2 and gradient_accumulation = ")
    assert half < now


def test_kto_keeps_two_rows_in_a_batch(size):
    kto = replace(LORA, method="kto", packing=False, gradient_checkpointing=True)
    assert "batch_size = 2" in told(replace(kto, batch_size=4), size)[0]
    assert "max_length" in told(replace(kto, batch_size=3), size)[0]


def test_where_nothing_else_is_left_rows_get_shorter(size):
    sentence, _ = told(replace(LORA, batch_size=1, gradient_checkpointing=True), size)
    assert sentence == "in the recipe max_length = 1024; now it is about N GB"
