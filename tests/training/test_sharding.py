"""`sharding = "fsdp2"`: two CPU processes, each with half of the weights, gradients and optimiser state."""

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from counting import chat
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Phi3Config
from two_ranks import RANKS, SECONDS, finished, start

from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from training.estimate.footprint import Batch, memory_need, model_size
from training.estimate.machine import Machine
from training.finetune import finetune
from training.recipes.recipe import load_recipe

RECIPE = """
steps = 20
batch_size = 4
learning_rate = 3e-3
max_length = 64
eval_every = 5
precision = "fp32"
{more}

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 2
heads = 2
context = 128
"""
WEIGHTS = "model.safetensors"
SHARDED = 'sharding = "fsdp2"'
WHOLE = f"gradient_accumulation = {RANKS}"  # one process: batches of the same size
WITHIN = 1e-3
SHAPE = Path(__file__).parents[1] / "data" / "configs" / "phi3.5-mini.json"
GPU = Machine(gpu=True, bf16=True, free=80 * 10**9)
LOOK = Path(__file__).parents[1] / "support" / "look_at_shards.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Whole batches for every rank, in each epoch and in both held-out sets."""
    folder = tmp_path_factory.mktemp("project")
    for name, first, last in (("train", 0, 64), ("val", 64, 72), ("test", 72, 80)):
        write_jsonl(folder / "data" / f"{name}.jsonl", [chat(i) for i in range(first, last)])
    recipes = {"sharded": SHARDED, "whole": WHOLE, "smaller": "", "sharded-twice": f"{SHARDED}\n{WHOLE}"}
    for name, more in recipes.items():
        (folder / f"{name}.toml").write_text(RECIPE.format(more=more))
    return folder


@pytest.fixture(scope="module")
def alone(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "tuned"
    return finetune(project / "data", load_recipe(str(project / "whole.toml")), out)


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    return [tmp_path_factory.mktemp(f"machine-{rank}") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def trained(project, machines):
    return finished(start(project, machines, "sharded.toml", command=(LOOK,)))


@pytest.mark.slow
def test_each_rank_has_its_half_of_weights_and_moments(trained, machines):
    seen = [json.loads((machine / "seen.json").read_text()) for machine in machines]
    for rank in seen:
        assert rank["sharded"]
        assert rank["own moments"] == rank["own weights"]
        assert rank["own weights"] / rank["weights"] == pytest.approx(0.5, abs=0.01)
    assert sum(rank["own weights"] for rank in seen) == seen[0]["weights"]


@pytest.mark.slow
def test_losses_are_those_of_one_process(trained, machines, alone):
    result = trained[0][0]["result"]
    assert result["steps"] == alone.result.steps
    assert result["test_loss"] == pytest.approx(alone.result.test_loss, abs=WITHIN)
    ranks, one = (read_jsonl(folder / "metrics.jsonl") for folder in (machines[0] / "tuned", alone.folder))
    for name in ("loss", "eval_loss"):
        ours, theirs = ([row[name] for row in rows if name in row] for rows in (ranks, one))
        assert len(ours) == len(theirs) > 0
        assert ours == pytest.approx(theirs, abs=WITHIN)


@pytest.mark.slow
def test_the_model_folder_is_the_one_of_a_run_without_sharding(trained, machines, alone):
    folder = machines[0] / "tuned"
    names = [{path.name for path in made.rglob("*")} for made in (folder, alone.folder)]
    assert names[0] - {".mlflow-run"} == names[1]  # which the command adds
    ours, theirs = load_file(folder / WEIGHTS), load_file(alone.folder / WEIGHTS)
    assert {name: weight.shape for name, weight in ours.items()} == {
        name: weight.shape for name, weight in theirs.items()
    }
    assert distance(ours, theirs) < 1e-2
    assert AutoModelForCausalLM.from_pretrained(folder).config.architectures == ["Phi3ForCausalLM"]
    assert {path.name for path in machines[1].rglob("*") if path.is_file()} <= {
        "rng_state_1.pth",
        "seen.json",
    }


def distance(ours, theirs):
    """Of the weights as one vector, as a share of its length."""
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return (apart / sum(float(weight.square().sum()) for weight in theirs.values())) ** 0.5


@pytest.mark.slow
def test_the_plan_says_that_the_model_is_split(trained):
    assert "tuned: weights, gradients and optimiser split over 2 processes (fsdp2)" in trained[1][0]


def wait_for_step(processes, folder, step):
    metrics, deadline = folder / ".tuned.partial" / "metrics.jsonl", time.monotonic() + SECONDS
    while not (metrics.exists() and any(row["step"] >= step for row in read_jsonl(metrics))):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def kill_after_step_11(processes, folder):
    """Kill the last rank when step 10 has a checkpoint; how the first ended, and what it said."""
    wait_for_step(processes, folder, 11)
    processes[-1].kill()
    assert processes[-1].wait() == -signal.SIGKILL
    said = processes[0].communicate(timeout=60)[1]
    return processes[0].returncode, said


@pytest.fixture(scope="module")
def cut_short(project, tmp_path_factory):
    """The folder of two ranks, one of which was killed, and how the other ended."""
    folder = tmp_path_factory.mktemp("cut-short")
    return folder, *kill_after_step_11(start(project, [folder] * RANKS, "sharded.toml"), folder)


@pytest.fixture(scope="module")
def alone_cut_short(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone-cut-short")
    kill_after_step_11(start(project, [folder], "whole.toml"), folder)
    return folder


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_within_a_minute_with_one_sentence(cut_short):
    _, code, said = cut_short
    assert code == 1
    assert "error: another process of this run has ended: " in said
    assert "Traceback" not in said
    assert said.rstrip().endswith("the same command continues from the last checkpoint")


@pytest.mark.slow
def test_a_checkpoint_is_the_one_of_a_single_process(cut_short, alone_cut_short):
    ranks, one = (
        folder / ".tuned.partial" / ".checkpoints" / "checkpoint-10"
        for folder in (cut_short[0], alone_cut_short)
    )
    assert distance(load_file(ranks / WEIGHTS), load_file(one / WEIGHTS)) < 1e-3
    ours, theirs = (torch.load(folder / "optimizer.pt", weights_only=True) for folder in (ranks, one))
    assert [group["params"] for group in ours["param_groups"]] == [
        group["params"] for group in theirs["param_groups"]
    ]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, kept in theirs["state"].items():
        for name, tensor in kept.items():
            assert torch.allclose(ours["state"][number][name], tensor, atol=1e-3), (number, name)


@pytest.mark.slow
def test_both_ranks_continue_to_the_same_weights(cut_short, trained, machines, project, tmp_path):
    folder = copied(cut_short[0], tmp_path)
    said = finished(start(project, [folder] * RANKS, "sharded.toml"))[1]
    assert "tuned continues after step 10" in said[0]
    ours, theirs = (load_file(made / "tuned" / WEIGHTS) for made in (folder, machines[0]))
    assert distance(ours, theirs) < 1e-6


@pytest.mark.slow
def test_one_process_continues_from_the_checkpoint_of_two(cut_short, project, tmp_path, capfd):
    folder = copied(cut_short[0], tmp_path)
    made = finetune(project / "data", load_recipe(str(project / "smaller.toml")), folder / "tuned")
    said = capfd.readouterr().err
    assert "tuned continues after step 10, on 1 process instead of 2: batches have another size" in said
    assert made.result.steps == 20


@pytest.mark.slow
def test_two_ranks_continue_from_the_checkpoint_of_one_process(alone_cut_short, project, tmp_path):
    folder = copied(alone_cut_short, tmp_path)
    printed, said = finished(start(project, [folder] * RANKS, "sharded-twice.toml"))
    assert "tuned continues after step 10, on 2 processes instead of 1: batches have another size" in said[0]
    assert printed[0]["result"]["steps"] == 20


def test_one_process_is_refused_with_the_command_that_starts_several(project, tmp_path):
    with pytest.raises(BadInput, match="splits the model over several processes, and this is one") as caught:
        finetune(project / "data", load_recipe(str(project / "sharded.toml")), tmp_path / "tuned")
    assert caught.value.hint.startswith("torchrun --nproc-per-node N --no-python phi3flow train ...")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("[lora]\nfour_bit = true", "sharding, lora: fsdp2 splits what full training needs"),
        ("compile = true", "sharding, compile: fsdp2 gathers the layers as they are written"),
    ],
    ids=["adapters", "compiled"],
)
def test_what_does_not_go_with_sharding_is_one_sentence(tmp_path, more, problem):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f"steps = 1\nbatch_size = 1\nlearning_rate = 1e-3\n{SHARDED}\n{more}\n")
    with pytest.raises(BadInput, match=problem) as caught:
        load_recipe(str(recipe))
    assert len(str(caught.value).splitlines()) == 1


def test_the_recipe_is_the_one_for_a_single_gpu_split():
    sharded, single = load_recipe("phi3.5-mini-full-fsdp"), load_recipe("phi3.5-mini-full")
    assert replace(sharded, sharding=None, gradient_accumulation=8) == single


@pytest.mark.parametrize(("ranks", "size"), [(2, 48), (4, 24)])
def test_the_recipe_fits_the_gpus_that_it_names(ranks, size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    recipe = replace(load_recipe("phi3.5-mini-full-fsdp"), attention="varlen", gradient_checkpointing=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Phi3Config(**json.loads(SHAPE.read_text())))
    need = memory_need(recipe, model_size(model, None), Batch(4096, 3300, 4096), GPU)
    whole = memory_need(replace(recipe, sharding=None), model_size(model, None), Batch(4096, 3300, 4096), GPU)
    assert need.parts["optimiser"] == whole.parts["optimiser"] // ranks
    assert need.total < size * 10**9 * 0.95
