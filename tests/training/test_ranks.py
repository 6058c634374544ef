"""Two ranks train one model: two CPU processes, each with its own disk or sharing one."""

import json
import signal
import time

import pytest
from counting import chat
from safetensors.torch import load_file
from two_ranks import RANKS, SECONDS, finished, start, under_torchrun

from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import sha256_of
from training.finetune import finetune
from training.recipes.recipe import load_recipe

RECIPE = """
steps = 20
batch_size = 4
{accumulation}
learning_rate = 3e-3
max_length = 64
eval_every = 5
precision = "fp32"

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 1
heads = 2
context = 128
dropout = 0.0
"""
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Whole batches for every rank, in each epoch and in both held-out sets."""
    folder = tmp_path_factory.mktemp("project")
    for name, first, last in (("train", 0, 64), ("val", 64, 72), ("test", 72, 80)):
        write_jsonl(folder / "data" / f"{name}.jsonl", [chat(i) for i in range(first, last)])
    (folder / "ranks.toml").write_text(RECIPE.format(accumulation=""))
    (folder / "alone.toml").write_text(RECIPE.format(accumulation=f"gradient_accumulation = {RANKS}"))
    return folder


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    return [tmp_path_factory.mktemp(f"machine-{rank}") for rank in range(RANKS)]


@pytest.fixture(scope="module")
def trained(project, machines):
    return finished(start(project, machines))


def test_only_rank_0_has_the_model_and_reports(trained, machines):
    printed, said = trained
    assert printed[0]["folder"] == "tuned"
    assert printed[1] == {"rank": 1}
    assert (machines[0] / "tuned" / WEIGHTS).is_file()
    assert not list(machines[0].glob(".tuned.partial"))
    assert {path.name for path in machines[1].rglob("*") if path.is_file()} <= {"rng_state_1.pth"}
    assert "tuned step" in said[0]
    assert "tuned" not in said[1]


def test_two_ranks_equal_one_process_with_batches_twice_as_large(trained, project, machines, tmp_path):
    """Each rank reads its own half of every batch and gets the other's gradient."""
    alone = finetune(project / "data", load_recipe(str(project / "alone.toml")), tmp_path / "alone")
    result = trained[0][0]["result"]
    assert result["steps"] == alone.result.steps
    assert result["validation_loss"] == pytest.approx(alone.result.validation_loss, rel=1e-4)
    assert result["test_loss"] == pytest.approx(alone.result.test_loss, rel=1e-4)
    ranks, one = (read_jsonl(folder / "metrics.jsonl") for folder in (machines[0] / "tuned", alone.folder))
    for name in ("loss", "eval_loss", "eval_mean_token_accuracy"):
        assert values(ranks, name) == pytest.approx(values(one, name), rel=1e-3)
    ours, theirs = load_file(machines[0] / "tuned" / WEIGHTS), load_file(alone.folder / WEIGHTS)
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    norm = sum(float(weight.square().sum()) for weight in theirs.values())
    assert (apart / norm) ** 0.5 < 1e-2


@pytest.mark.slow
def test_torchrun_trains_the_same_model(trained, project, machines, tmp_path):
    """The line of docs/training.md: its losses and weights are those of ranks that we start ourselves."""
    ended = under_torchrun(project, tmp_path)
    assert ended.returncode == 0, ended.stderr
    printed = [json.loads(line) for line in ended.stdout.splitlines()]
    result, other = sorted(printed, key=len, reverse=True)
    assert other == {"rank": 1}
    assert result["result"] == trained[0][0]["result"]
    both = [folder / "tuned" for folder in (tmp_path, machines[0])]
    ours, theirs = (read_jsonl(folder / "metrics.jsonl") for folder in both)
    for name in ("loss", "eval_loss"):
        assert len(values(ours, name)) > 0
        assert values(ours, name) == values(theirs, name)
    assert sha256_of(both[0] / WEIGHTS) == sha256_of(both[1] / WEIGHTS)


def values(rows, name):
    return [row[name] for row in rows if name in row]


@pytest.mark.slow
def test_killed_and_restarted_on_one_disk_they_end_with_the_same_weights(
    trained, project, machines, tmp_path
):
    metrics = tmp_path / ".tuned.partial" / "metrics.jsonl"
    processes = start(project, [tmp_path] * RANKS)
    deadline = time.monotonic() + SECONDS
    while not (metrics.exists() and any(row["step"] >= 10 for row in read_jsonl(metrics))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in processes:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    said = finished(start(project, [tmp_path] * RANKS))[1]
    assert "tuned continues after step" in said[0]
    assert sha256_of(tmp_path / "tuned" / WEIGHTS) == sha256_of(machines[0] / "tuned" / WEIGHTS)
