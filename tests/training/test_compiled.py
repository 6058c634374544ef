"""Compiled layers: the losses and weights of a run are those of the layers as written."""

from dataclasses import replace

import counting
import pytest
import torch
from counting import chat

from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import write_jsonl
from training.loop.run import advance, encode, make_trainer
from training.loop.start import Run, starting_model, starting_tokenizer

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


def ended(run):
    chats = load_chats(run.data / "train.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    rows = encode(run, tokenizer, chats).rows
    torch.manual_seed(run.seed)
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, rows)
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
