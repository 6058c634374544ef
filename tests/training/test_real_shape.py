"""Every recipe takes its first steps with the published configurations, cut to two random layers.

`tests/data/configs` holds the published configurations. Width, heads, rotary factors, vocabulary and windows
are theirs, the settings are the recipe's but for the number of steps, and for bf16 where the processor only
emulates it; Phi-4-mini's and SmolLM2's own tokenizers are not at hand, so their models meet Phi-3's.
SmolLM2's configuration is what `base --pretrained` writes. Nothing here is written under pytest's folders,
which keep three runs of it.
"""

import gc
import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from transformers import TrainerCallback

from phi3flow.chats.rows import load_chats
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from training.data.encode import encode_chats, packed
from training.loop.finish import merged
from training.loop.material import encode
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainer import LineCollator
from training.loop.trainers import make_trainer
from training.models.loading import load_model
from training.recipes.recipe import load_recipe, recipe_names
from training.recipes.training_arguments import has_bf16

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
LAYERS = 2
STEPS = 2  # the first step of a warm-up has a learning rate of 0
SHAPES = {
    "phi3-mini-4k-lora": "phi3-mini-4k",
    "phi3.5-mini-lora": "phi3.5-mini",
    "phi3.5-mini-full": "phi3.5-mini",
    "phi4-mini-lora": "phi4-mini",
    "small-cpu": "smollm2-135m",
    "small-gpu": "smollm2-135m",
    "tiny-cpu": "phi3.5-mini",
    "scan": None,
    "tiny-base": None,
}
FOUR_BIT = "phi3.5-mini-qlora"
# phi3.5-mini-full on several processes: test_sharding.py; preferences: test_preference_training.py.
ELSEWHERE = {"phi3.5-mini-full-fsdp", "dpo-tiny", "dpo-lora"}
HAS_FOUR_BIT = importlib.util.find_spec("bitsandbytes") is not None
KERNELS = "the 4-bit kernels are those of bitsandbytes (Linear4bit, NF4), which is not installed"
LINEAR = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
CHATS = [
    ("Who founded Microsoft?", "Bill Gates and Paul Allen."),
    ("Which planet from the Sun is Mars?", "Mars is planet number 4 from the Sun."),
    ("jump twice and look left", "JUMP JUMP TURN LEFT LOOK"),
]


@pytest.fixture(scope="module")
def folder():
    """Chats, and a model folder for each shape, made on first use."""
    with TemporaryDirectory(prefix="real-shape-") as name:
        rows = [
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            for question, answer in CHATS
        ]
        for file in ("train.jsonl", "val.jsonl"):
            write_jsonl(Path(name) / "data" / file, rows)
        yield Path(name)


def model_folder(folder, shape):
    """What the hub would deliver: the published configuration, bf16 weights, the tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    out = folder / shape
    if out.exists():
        return out
    shutil.copytree(DATA / "phi3_tokenizer", out)
    published = json.loads((DATA / "configs" / f"{shape}.json").read_text()) | {"num_hidden_layers": LAYERS}
    (out / "config.json").write_text(json.dumps(published))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out)).state_dict()
    if published["tie_word_embeddings"]:
        del empty["lm_head.weight"]
    save_file({name: drawn(tensor.shape) for name, tensor in empty.items()}, out / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    return out


def drawn(shape):
    """Ones for a norm, else a million random numbers repeated, which is faster than drawing all."""
    import torch

    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).mul(0.02).bfloat16()
    return noise.repeat(shape.numel() // len(noise) + 1)[: shape.numel()].view(shape).clone()


def names_and_changes(before, after):
    """The names of all weights and of those that differ, one tensor at a time to save memory."""
    from safetensors import safe_open

    with (
        safe_open(before / "model.safetensors", framework="pt") as old,
        safe_open(after / "model.safetensors", framework="pt") as new,
    ):
        names = set(old.keys())
        assert names == set(new.keys())
        changed = {
            name for name in names if not old.get_tensor(name).float().equal(new.get_tensor(name).float())
        }
    return names, changed


class NoCheckpoint(TrainerCallback):
    """Skip saving gigabytes of optimiser state."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = False


def first_steps(name):
    """The shipped recipe, changed as `phi3flow train` suggests where bf16 is emulated."""
    recipe = replace(load_recipe(name), steps=STEPS, epochs=None)
    return recipe if has_bf16() else replace(recipe, precision="fp32", weights="fp32")


def test_every_shipped_recipe_is_tried_here():
    assert {*SHAPES, FOUR_BIT, *ELSEWHERE} == set(recipe_names())


@pytest.mark.parametrize(
    "name", [*SHAPES, pytest.param(FOUR_BIT, marks=pytest.mark.skipif(not HAS_FOUR_BIT, reason=KERNELS))]
)
def test_the_first_steps_change_what_they_should_and_the_saved_folder_loads(name, folder):
    recipe = first_steps(name)
    shape = SHAPES.get(name, "phi3.5-mini")
    base = model_folder(folder, shape) if shape else None
    chats = load_chats(folder / "data" / "train.jsonl")
    with TemporaryDirectory(dir=folder) as work:
        run = Run(folder / "data", recipe, Path(work), "tuned", str(base) if base else None, 0)
        tokenizer = starting_tokenizer(run, chats)
        model = starting_model(run, tokenizer)
        rows = encode(run, tokenizer, chats).rows
        trainer = make_trainer(run, model, tokenizer, rows, rows)
        trainer.add_callback(NoCheckpoint())
        loss = trainer.train().training_loss
        # Random weights know nothing: every token of the vocabulary is about as likely.
        assert abs(loss - math.log(model.config.vocab_size)) < 1.5
        trained = merged(run, trainer.whole_model(None))
        trained.save_pretrained(work)
        size, rope = trained.num_parameters(), trained.config.rope_parameters
        del model, trainer, trained
        gc.collect()  # a trainer stands in a circle with its callbacks, and holds gigabytes
        loaded = load_model(work, weights=recipe.weights)
        assert (loaded.num_parameters(), loaded.config.rope_parameters) == (size, rope)
        if base is None:
            return
        names, changed = names_and_changes(base, Path(work))
        adapted = {name for name in names if name.split(".")[-2] in LINEAR}
        assert changed == (adapted if recipe.lora else names)


@pytest.mark.skipif(HAS_FOUR_BIT, reason="bitsandbytes is installed")
def test_four_bits_need_the_kernels_of_bitsandbytes(folder):
    recipe = load_recipe(FOUR_BIT)
    base = model_folder(folder, "phi3.5-mini")
    run = Run(folder / "data", recipe, folder, "tuned", str(base), 0)
    with pytest.raises(BadInput, match="bitsandbytes"):
        starting_model(run, starting_tokenizer(run, []))


@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi3.5-mini", "phi4-mini"])
def test_a_packed_chat_has_the_same_logits_as_alone(shape, folder):
    import torch

    recipe = replace(load_recipe("phi3.5-mini-lora"), weights="fp32")
    run = Run(folder / "data", recipe, folder, "tuned", str(model_folder(folder, shape)), 0)
    tokenizer = starting_tokenizer(run, [])
    chats = load_chats(run.data / "train.jsonl")
    rows = packed(encode_chats(tokenizer, chats, recipe.max_length, "refuse").rows, recipe.max_length)
    assert len(rows) == 1
    batch = LineCollator(tokenizer.pad_token_id, padding_free=True)([rows[0]])
    model = starting_model(run, tokenizer).eval()
    start = 0
    with torch.inference_mode():
        together = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        leaking = model(batch["input_ids"], use_cache=False).logits[0]
        for length in rows[0]["seq_lengths"]:
            part = slice(start, start + length)
            alone = model(batch["input_ids"][:, part], use_cache=False).logits[0]
            assert (together[part] - alone).abs().max() < 1e-3
            if start:
                assert (leaking[part] - alone).abs().max() > 1e-1
            start += length
    assert start == len(batch["input_ids"][0])
