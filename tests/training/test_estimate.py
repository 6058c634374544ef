"""The estimate of a run against what a step really keeps and a run really writes.

Whole processes were measured once, on two cores; the table stands in docs/training.md.
"""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from torch.nn.functional import cross_entropy

from phi3flow.core.errors import Phi3flowError
from training.estimate.footprint import (
    Batch,
    Need,
    disk_need,
    largest_batch,
    memory_need,
    model_size,
    require_room,
)
from training.estimate.machine import this_machine
from training.loop.start import Run, empty_model
from training.models.scratch import new_model, train_tokenizer
from training.recipes.recipe import Lora, Recipe, Scratch
from training.recipes.training_arguments import peft_config

SHAPE = Scratch(vocab_size=2000, hidden_size=256, intermediate_size=768, layers=4, heads=8, context=512)
RECIPE = Recipe(steps=1, batch_size=4, learning_rate=1e-3, max_length=128, scratch=SHAPE, precision="fp32")
LORA = Lora(rank=8, dropout=0.1)
BATCH = Batch(tokens=4 * 128, counted=100, longest=128)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["who founded it"] * 3, 400, 512)


def built(tokenizer, recipe):
    """The model that the trainer would train, with real weights."""
    model = new_model(recipe.scratch, tokenizer, seed=0)
    model.set_attn_implementation("eager" if recipe.attention == "eager" else "sdpa")
    if recipe.gradient_checkpointing is True:
        model.gradient_checkpointing_enable()
    if recipe.lora:
        model = get_peft_model(model, peft_config(recipe.lora))
    return model.train()


def kept_by_a_step(model, recipe, batch):
    """Bytes that autograd keeps between the forward and the backward pass, weights excluded."""
    storages, own = {}, {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    bearing = torch.arange(batch.tokens) < batch.counted
    ids = torch.randint(0, 250, (batch.tokens // batch.longest, batch.longest))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        base = model.get_base_model() if recipe.lora else model
        hidden = base.model(ids, use_cache=False).last_hidden_state.flatten(0, 1)[bearing]
        cross_entropy(base.lm_head(hidden).float(), ids.flatten()[bearing])
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": "bf16"},
        {"precision": "bf16", "attention": "eager"},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"precision": "bf16", "lora": LORA},
        {"lora": LORA},
    ],
    ids=["fp32", "bf16", "eager", "checkpointing", "lora-bf16", "lora-fp32"],
)
def test_activations_are_what_autograd_keeps(tokenizer, change):
    recipe = replace(RECIPE, **change)
    model = built(tokenizer, recipe)
    parts = memory_need(
        recipe, model_size(new_model(SHAPE, tokenizer, 0), recipe.lora), BATCH, this_machine()
    ).parts
    estimated = parts["activations"] + parts["bf16 copies"] + parts["logits"] // 2
    kept = kept_by_a_step(model, recipe, BATCH)
    if recipe.gradient_checkpointing is True:  # one layer at a time comes in the backward pass
        kept += parts["activations"] - 4 * 4 * 256 * BATCH.tokens
    assert 0.85 < estimated / kept < 1.2


def test_a_model_is_counted_without_weights(tokenizer):
    run = Run(None, RECIPE, None, "tuned", None, 0)
    real = built(tokenizer, RECIPE)
    size = model_size(empty_model(run, tokenizer), LORA)
    assert next(empty_model(run, tokenizer).parameters()).device.type == "meta"
    assert size.parameters == real.num_parameters()
    adapted = get_peft_model(real, peft_config(LORA))
    assert size.adapters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_the_largest_batch_has_the_longest_rows():
    rows = Dataset.from_list(
        [{"input_ids": [1] * n, "labels": [-100] * (n - 2) + [1, 1]} for n in (3, 9, 4, 7, 8)]
    )
    recipe = replace(RECIPE, batch_size=2)
    assert largest_batch(recipe, rows) == Batch(tokens=18, counted=4, longest=9)
    assert largest_batch(replace(recipe, packing=True), rows) == Batch(tokens=17, counted=4, longest=17)


def test_too_little_memory_and_disk_is_one_error_with_the_repair(tokenizer, tmp_path, capsys):
    huge = replace(SHAPE, hidden_size=65_536, intermediate_size=262_144, layers=80)
    recipe = replace(RECIPE, scratch=huge)
    rows = Dataset.from_list([{"input_ids": [1] * 9, "labels": [1] * 9}])
    size = model_size(empty_model(Run(None, recipe, None, "tuned", None, 0), tokenizer), None)
    with pytest.raises(Phi3flowError) as caught:
        require_room("tuned", recipe, size, rows, tmp_path)
    said = str(caught.value)
    assert said.startswith("tuned needs about ")
    assert all(part in said for part in ("of memory (weights ", "of disk (checkpoints ", " are free"))
    assert "[scratch] fewer layers" in caught.value.hint
    assert f"free space on the disk of {tmp_path.parent}" in caught.value.hint
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "repair"),
    [
        ({"batch_size": 64, "scratch": None}, "gradient_checkpointing = true"),
        ({"scratch": None}, 'weights = "bf16"'),
        ({"scratch": None, "lora": LORA}, 'set weights = "bf16"'),
        ({"scratch": None, "lora": LORA, "weights": "bf16"}, "four_bit = true"),
    ],
)
def test_the_repair_is_the_change_that_saves_most(tokenizer, change, repair):
    recipe = replace(RECIPE, **change)
    size = model_size(new_model(SHAPE, tokenizer, 0), recipe.lora)
    batch = Batch(64 * 128, 100, 128) if recipe.batch_size == 64 else Batch(1, 1, 1)
    assert repair in memory_need(recipe, size, batch, this_machine()).hint


def test_a_resumed_run_counts_its_own_files_as_free(tokenizer, tmp_path):
    size = model_size(new_model(SHAPE, tokenizer, 0), None)
    before = disk_need(RECIPE, size, tmp_path)
    with (tmp_path / "checkpoint").open("wb") as file:
        file.truncate(10**12)  # a hole: it takes no room, and nobody else on this disk can write as much
    assert disk_need(RECIPE, size, tmp_path).free - before.free == pytest.approx(10**12, rel=0.1)
    assert before.parts["model"] == 4 * size.parameters
    assert Need("disk", {"a": 2, "b": 3}, 5, "").is_met
