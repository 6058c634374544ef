"""Training that is killed anywhere and restarted ends with the same weights as an undisturbed run."""

import errno
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from counting import chat
from warm_command import WarmCommand

from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import sha256_of

RECIPE = """
steps = 60
batch_size = 8
learning_rate = 1e-2
max_length = 64
eval_every = 5

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 2
heads = 2
context = 128
dropout = 0.1
"""
ADAPTERS = """
model = "whole"
steps = 40
batch_size = 2
gradient_accumulation = 2
learning_rate = 1e-2
max_length = 64
packing = true
eval_every = 3

[lora]
rank = 4
"""
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    write_jsonl(folder / "data" / "train.jsonl", [chat(i) for i in range(90)])
    write_jsonl(folder / "data" / "val.jsonl", [chat(i) for i in range(90, 100)])
    (folder / "mine.toml").write_text(RECIPE)
    (folder / "adapters.toml").write_text(ADAPTERS)
    with WarmCommand(folder) as command:
        yield command


def train(out, recipe="mine.toml"):
    return ["train", "--data", "data", "--recipe", recipe, "--out", out]


@pytest.fixture(scope="module")
def whole(command):
    """The hash of an undisturbed run's weights."""
    ended = command.run(*train("whole"))
    assert ended.code == 0, ended.said
    return sha256_of(command.folder / "whole" / WEIGHTS)


def disturb(command, out, step, disturbance, recipe="mine.toml"):
    """Start the run, wait until it has logged `step`, do `disturbance(started)` to it; how it ended."""
    started = command.start(*train(str(out), recipe))
    path = command.folder / out.with_name(f".{out.name}.partial") / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (path.exists() and any(row["step"] >= step for row in read_jsonl(path))):
        assert started.running, "the run ended before it could be disturbed"
        assert time.monotonic() < deadline, f"{out} never reached step {step}"
        time.sleep(0.01)
    disturbance(started)
    return started.wait()


def kill(started):
    os.kill(started.pid, signal.SIGKILL)


def finish(command, out, recipe="mine.toml"):
    ended = command.run(*train(str(out), recipe))
    assert ended.code == 0, ended.said
    return sha256_of(command.folder / out / WEIGHTS)


def validation(command, out):
    metrics = read_jsonl(command.folder / out / "metrics.jsonl")
    return [(row["step"], row["eval_loss"]) for row in metrics if "eval_loss" in row]


def newest(command, out):
    checkpoints = (command.folder / f".{out}.partial" / ".checkpoints").glob("checkpoint-*")
    return max(checkpoints, key=lambda path: int(path.name.split("-")[1]))


def test_killed_three_times_anywhere_it_ends_with_the_same_weights(command, whole):
    points = sorted(random.Random(0).sample(range(5, 50), 3))
    assert [disturb(command, Path("killed"), step, kill).code for step in points] == [-signal.SIGKILL] * 3
    assert finish(command, "killed") == whole
    assert [step for step, _ in validation(command, "killed")] == list(range(5, 65, 5))
    assert validation(command, "killed") == validation(command, "whole")


@pytest.mark.slow
def test_adapters_on_packed_rows_end_with_the_same_weights(command, whole):
    undisturbed = finish(command, "adapted", "adapters.toml")
    assert undisturbed != whole
    for step in (9, 24):
        assert disturb(command, Path("again"), step, kill, "adapters.toml").code == -signal.SIGKILL
    assert finish(command, "again", "adapters.toml") == undisturbed
    assert validation(command, "again") == validation(command, "adapted")


def test_an_incomplete_checkpoint_is_skipped_and_ctrl_c_leaves_a_complete_one(command, whole):
    ended = disturb(command, Path("torn"), 20, lambda started: os.kill(started.pid, signal.SIGINT))
    assert (ended.code, "the same command continues" in ended.said) == (130, True)
    torn = newest(command, "torn")
    assert set(read_json(torn / "sealed.json")) >= {WEIGHTS, "optimizer.pt", "scheduler.pt"}
    optimiser = torn / "optimizer.pt"
    optimiser.write_bytes(optimiser.read_bytes()[:1000])
    assert finish(command, "torn") == whole


def mounted(folder):
    """Whether a file system of 40 MB could be mounted there; it takes root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder]
    return os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode


@pytest.fixture(scope="module")
def small_disk(command):
    folder = command.folder / "disk"
    if not mounted(folder):
        yield None
        return
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_and_the_previous_checkpoint_is_used(command, whole, small_disk):
    """The kernel's own refusal: of a small disk (ENOSPC), or where none may be mounted of a limit (EFBIG)."""
    out = Path("disk") / "tuned"

    def fill(started):
        if not small_disk:
            resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            return
        refused = set()
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            while started.running:  # what a deleted checkpoint gives back is taken too
                try:
                    filler.write(bytes(65536))
                except OSError as error:
                    refused.add(error.errno)
                    time.sleep(0.001)
        assert refused == {errno.ENOSPC}

    ended = disturb(command, out, 20, fill)
    assert ended.code == 1
    error, hint = ended.said.strip().splitlines()[-2:]
    assert "disk/.tuned.partial: cannot be written: " in error
    assert re.search(r"; a checkpoint takes about [\d.]+ MB, [\d.]+ [MG]B are free$", error)
    assert int(re.search(r"^hint: .*the same command again; it continues after step (\d+)$", hint)[1]) >= 15
    (command.folder / "disk" / "filler").unlink(missing_ok=True)
    assert finish(command, out) == whole


def test_a_disk_that_is_too_small_is_an_error_before_the_start(command, small_disk):
    if small_disk is None:
        pytest.skip("mounting a small disk is not allowed here")
    before = {path.name for path in small_disk.iterdir()}
    (small_disk / "filler").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 500_000))
    ended = command.run(*train("disk/another"))
    assert ended.code == 1
    assert re.search(r"error: another needs about [\d.]+ MB of disk \(checkpoints", ended.said)
    assert {path.name for path in small_disk.iterdir()} == before | {"filler"}
