"""What "auto" becomes on which machine, and what the run says about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.attention.varlen
from datasets import Dataset
from transformers import AutoModelForCausalLM, Phi3Config

from phi3flow.core.errors import BadInput
from training.estimate.choices import COMPILING_PAYS, settled
from training.estimate.footprint import model_size
from training.estimate.machine import Machine
from training.recipes.recipe import Lora, load_recipe

SHAPE = Path(__file__).parents[1] / "data" / "configs" / "phi3.5-mini.json"
CPU = Machine(gpu=False, bf16=True, free=24 * 10**9)
SMALL, LARGE = (Machine(gpu=True, bf16=True, free=free * 10**9) for free in (24, 84))
WITH_LIGER = LARGE._replace(liger=True)
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


def test_a_short_run_gets_ligers_kernels_where_they_are_installed(size):
    short = replace(LORA, steps=10, epochs=None)
    found = settled(short, size, ROWS, WITH_LIGER)
    assert (found.recipe.compile, found.recipe.liger) == (False, True)
    assert found.why[2] == "Liger's kernels for rotary embedding, norms and SwiGLU"


def test_without_the_package_the_run_says_what_would_make_it_faster(size):
    found = settled(replace(LORA, steps=10, epochs=None), size, ROWS, LARGE)
    assert found.recipe.liger is False
    assert found.why[2] == "plain layers (Liger's kernels are faster: pip install 'liger-kernel>=0.8.5')"


@pytest.mark.parametrize(
    "change", [{}, {"packing": False}, {"lora": Lora(four_bit=True)}], ids=["compiled", "padded", "4 bits"]
)
def test_other_runs_are_left_as_they_are(size, change):
    found = settled(replace(LORA, **change), size, ROWS, WITH_LIGER)
    assert found.recipe.liger is False
    assert not any("Liger" in reason for reason in found.why)


@pytest.mark.parametrize(
    ("machine", "problem", "hint"),
    [
        (CPU, "the kernels need a CUDA GPU", "leave liger out of the recipe"),
        (LARGE, "liger-kernel 0.8.5 or newer is not installed", "pip install 'liger-kernel>=0.8.5'"),
    ],
    ids=["cpu", "no package"],
)
def test_kernels_that_are_asked_for_and_missing_are_refused(size, machine, problem, hint):
    with pytest.raises(BadInput, match=f"liger = true: {problem}") as caught:
        settled(replace(LORA, liger=True), size, ROWS, machine)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("change", "machine"),
    [({}, CPU), ({}, OLD), ({"packing": False}, LARGE), ({"precision": "fp32"}, LARGE)],
    ids=["cpu", "no bf16", "padded", "fp32"],
)
def test_elsewhere_attention_and_layers_stay_as_they_are(size, change, machine):
    (attention, compiled, _), _ = chosen(replace(LORA, **change), size, machine)
    assert (attention, compiled) == ("sdpa", False)


@pytest.mark.parametrize(("grouped", "attention"), [(False, "varlen"), (True, "sdpa")])
def test_a_torch_whose_kernel_knows_no_grouped_keys_trains_models_that_have_them_by_sdpa(
    size, monkeypatch, grouped, attention
):
    """torch 2.11's signature. 2.10, which Azure's nodes need, has no `window_size` either."""

    def varlen_attn(*states_and_lengths, scale=None, window_size=(-1, -1)):
        raise NotImplementedError

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", varlen_attn)
    config = Phi3Config(num_attention_heads=32, num_key_value_heads=8 if grouped else 32)
    found = settled(LORA, size._replace(config=config), ROWS, LARGE)
    assert found.recipe.attention == attention
    if grouped:
        assert found.why[0] == "sdpa attention (this torch has no kernel for packed rows)"


def test_what_the_recipe_says_stays(size):
    asked = replace(LORA, attention="sdpa", compile=True, liger=False, gradient_checkpointing=True)
    assert settled(asked, size, ROWS, LARGE) == (asked, [])
