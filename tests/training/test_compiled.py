"""Compiled layers: the losses and weights of a run are those of the layers as written."""

from dataclasses import replace

import counting
import pytest
import torch
from counting import chat
from safetensors.torch import load_file
from transformers import TrainerCallback

from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import write_jsonl
from training.loop.finish import merged
from training.loop.material import encode
from training.loop.run import advance
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainers import make_trainer
from training.recipes.recipe import Lora

RECIPE = replace(
    counting.RECIPE,
    steps=4,
    batch_size=2,
    eval_every=2,
    packing=True,
    attention="varlen",
    precision="fp32",
    compile=True,
)


@pytest.fixture
def run(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [chat(i) for i in range(40)])
    (tmp_path / "work").mkdir()
    return Run(tmp_path, RECIPE, tmp_path / "work", "tuned", None, 0)


def ended(run, *callbacks):
    chats = load_chats(run.data / "train.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    rows = encode(run, tokenizer, chats).rows
    torch.manual_seed(run.seed)
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, rows)
    for callback in callbacks:
        trainer.add_callback(callback)
    advance(run, trainer)
    return trainer


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture(autouse=True)
def compiler():
    """Each test finds a compiler that has seen nothing."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_losses_and_weights_are_those_of_the_layers_as_written(run, tmp_path, checkpointing):
    recipe = replace(RECIPE, gradient_checkpointing=checkpointing)
    compiled = ended(replace(run, recipe=recipe))
    assert graphs() == 1  # validation has none of its own
    (tmp_path / "plain").mkdir()
    plain = ended(replace(run, recipe=replace(recipe, compile=False), work=tmp_path / "plain"))
    assert graphs() == 1
    losses = [
        [row["eval_loss"] for row in each.state.log_history if "eval_loss" in row]
        for each in (compiled, plain)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for (name, one), (same, other) in zip(
        compiled.model.state_dict().items(), plain.model.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.allclose(one, other, atol=1e-3), name


def test_a_machine_that_cannot_compile_trains_uncompiled_and_says_so_once(run, capsys, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    trainer = ended(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "uncompiled" in line]
    assert len(said) == 1
    assert "torch cannot compile them here" in said[0]
    assert trainer.state.global_step == RECIPE.steps


class Stops(TrainerCallback):
    """A run that ends in the middle, after its first checkpoint."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == RECIPE.eval_every + 1:
            raise KeyboardInterrupt


def test_a_run_that_stops_resumes_to_the_same_weights(run, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        ended(run, Stops())
    resumed = ended(run)
    assert "tuned continues after step 2" in capsys.readouterr().err
    (tmp_path / "whole").mkdir()
    whole = ended(replace(run, work=tmp_path / "whole"))
    for (name, one), other in zip(
        resumed.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5), name


@pytest.mark.slow
def test_adapters_of_compiled_layers_are_merged_into_the_saved_weights(run, tmp_path):
    plain = ended(replace(run, recipe=replace(RECIPE, compile=False)))
    plain.model.save_pretrained(tmp_path / "base")
    plain.processing_class.save_pretrained(tmp_path / "base")
    (tmp_path / "adapted").mkdir()
    recipe = replace(RECIPE, scratch=None, lora=Lora(rank=4, dropout=0.0))
    run = replace(run, recipe=recipe, start=str(tmp_path / "base"), work=tmp_path / "adapted")
    trainer = ended(run)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        adapted = trainer.model(ids, use_cache=False).logits
        trained = merged(run, trainer.whole_model(None))
        assert torch.allclose(trained(ids, use_cache=False).logits, adapted, atol=1e-4)
        assert not torch.allclose(plain.model(ids, use_cache=False).logits, adapted, atol=1e-2)
    trained.save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == (
        load_file(tmp_path / "base" / "model.safetensors").keys()
    )
