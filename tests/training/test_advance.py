"""From a checkpoint to the end of a run, wherever it stopped: the same weights and honest messages."""

import contextlib
import os
import pty
import re
import shutil
import subprocess
from dataclasses import replace

import counting
import pytest
import torch
from counting import chat
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from phi3flow.chats.chat_template import encode_example
from phi3flow.chats.rows import load_chats
from phi3flow.core.child_process import module_command
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from training.checkpoints import step_of, valid_checkpoints
from training.finetune import finetune
from training.loop.material import encode
from training.loop.run import advance
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainers import make_trainer
from training.recipes.recipe import Lora

# 60 chats are eight steps: a run of twelve ends within an epoch.
RECIPE = replace(counting.RECIPE, eval_every=2)
# The loss on other chats rises at once: three validations later the run stops.
STOPPING = replace(RECIPE, steps=200, learning_rate=0.3, scheduler="constant", warmup=0.0, patience=3)

BAR_RECIPE = """
steps = 60
batch_size = 8
learning_rate = 1e-2
max_length = 64
eval_every = 60

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 1
heads = 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", [chat(i) for i in range(60)])
    write_jsonl(folder / "val.jsonl", [chat(10**i) for i in range(1, 12)])
    return folder


class StopAt(TrainerCallback):
    """Leaves what a kill after step `step` would leave: the checkpoints until then."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise InterruptedError


def trainer_of(run):
    run.work.mkdir(exist_ok=True)
    chats = {name: load_chats(run.data / name) for name in ("train.jsonl", "val.jsonl")}
    tokenizer = starting_tokenizer(run, chats["train.jsonl"])
    rows = [encode(run, tokenizer, each).rows for each in chats.values()]
    torch.manual_seed(run.seed)
    return make_trainer(run, starting_model(run, tokenizer), tokenizer, *rows)


def ended(run):
    """The trainer of `run` after its last step."""
    trainer = trainer_of(run)
    advance(run, trainer)
    return trainer


def interrupt(run, step):
    trainer = trainer_of(run)
    trainer.add_callback(StopAt(step))
    with pytest.raises(InterruptedError):
        advance(run, trainer)


def same(one, other):
    return all(a.equal(b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def steps(run):
    return [row["step"] for row in read_jsonl(run.work / "metrics.jsonl") if "eval_loss" in row]


@pytest.mark.parametrize("recipe", [RECIPE, STOPPING], ids=["steps", "patience"])
def test_a_finished_run_takes_no_more_steps(data, tmp_path, capsys, recipe):
    run = Run(data, recipe, tmp_path / "work", "tuned", None, 0)
    before = ended(run)
    metrics = (run.work / "metrics.jsonl").read_text()
    capsys.readouterr()
    after = ended(run)
    assert "is already trained" in capsys.readouterr().err
    assert (after.state.global_step, after.state.best_global_step) == (
        before.state.global_step,
        before.state.best_global_step,
    )
    assert same(before, after)
    assert (run.work / "metrics.jsonl").read_text() == metrics


def test_early_stopping_keeps_its_count_after_an_interruption(data, tmp_path):
    whole, resumed = (Run(data, STOPPING, tmp_path / name, name, None, 0) for name in ("whole", "resumed"))
    undisturbed = ended(whole)
    last = undisturbed.state.global_step
    assert last < STOPPING.steps
    interrupt(resumed, last - 1)  # two of its three validations have passed
    disturbed = ended(resumed)
    assert disturbed.state.global_step == last
    assert steps(resumed) == steps(whole)
    assert same(disturbed, undisturbed)


def test_the_last_checkpoint_and_the_best_are_kept(data, tmp_path):
    run = Run(data, replace(STOPPING, patience=None, steps=30), tmp_path / "work", "tuned", None, 0)
    state = ended(run).state
    kept = {path.name for path in run.checkpoints.glob("checkpoint-*")}
    assert kept == {"checkpoint-30", f"checkpoint-{state.best_global_step}"}


def test_a_kill_while_saving_costs_only_the_incomplete_checkpoint(data, tmp_path):
    """The incomplete one would have become the best; the one it would have replaced is still there."""

    class KilledBeforeTheSeal(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 6:
                raise InterruptedError

    run = Run(data, RECIPE, tmp_path / "work", "tuned", None, 0)
    trainer = trainer_of(run)
    trainer.callback_handler.callbacks.insert(0, KilledBeforeTheSeal())
    with pytest.raises(InterruptedError):
        advance(run, trainer)
    assert [step_of(path) for path in valid_checkpoints(run.checkpoints)] == [4, 2]
    assert same(ended(run), ended(replace(run, work=tmp_path / "whole")))


def test_a_moved_run_still_finds_its_best_checkpoint(data, tmp_path):
    recipe = replace(STOPPING, patience=None, steps=10, eval_every=5)
    run = Run(data, recipe, tmp_path / "run", "tuned", None, 0)
    undisturbed = ended(run)
    moved = replace(run, work=run.work.rename(tmp_path / "moved"))
    assert same(ended(moved), undisturbed)


def test_validation_loss_is_per_token_and_does_not_depend_on_batches(data, tmp_path):
    run = Run(data, RECIPE, tmp_path / "work", "tuned", None, 0)
    trainer = ended(run)  # which has learned to end an answer, and not yet what it says
    said = trainer.evaluate()["eval_loss"]
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    total = count = 0
    for each in load_chats(data / "val.jsonl"):
        ids, mask = encode_example(trainer.processing_class, each.messages)
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        bears = torch.tensor(mask[1:], dtype=torch.bool)
        total += cross_entropy(logits[bears], torch.tensor(ids[1:])[bears], reduction="sum").item()
        count += int(bears.sum())
    assert said == pytest.approx(total / count, rel=2e-3)  # bf16, where the machine has it


def test_a_resumed_run_replaces_the_metrics_of_the_steps_that_it_repeats(data, tmp_path):
    run = Run(data, RECIPE, tmp_path / "work", "tuned", None, 0)
    interrupt(run, 3)
    with (run.work / "metrics.jsonl").open("a") as killed:
        killed.write('{"step": 4, "eval_loss": 0.0}\n{"step": 6, "eval_lo')
    ended(run)
    whole = replace(run, work=tmp_path / "whole")
    ended(whole)
    kept, expected = (
        [(row["step"], row.get("eval_loss")) for row in read_jsonl(each.work / "metrics.jsonl")]
        for each in (run, whole)
    )
    assert kept == expected


def test_a_run_interrupted_before_its_last_rename_only_repeats_that(data, tmp_path, capsys):
    out = tmp_path / "tuned"
    made = finetune(data, RECIPE, out)
    files = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    out.rename(tmp_path / ".tuned.partial")
    capsys.readouterr()
    assert finetune(data, RECIPE, out) == made
    assert "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == files


def test_a_test_chat_that_is_too_long_fails_before_training(data, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    write_jsonl(folder / "test.jsonl", [chat(1), chat(10**60)])
    with pytest.raises(BadInput, match=r"test\.jsonl:2: messages: \d+ tokens, more than max_length 64"):
        finetune(folder, RECIPE, tmp_path / "out")
    assert "step" not in capsys.readouterr().err


def test_an_unknown_layer_in_lora_targets_is_an_error_with_the_known_ones(data, tmp_path):
    base = finetune(data, RECIPE, tmp_path / "base")
    recipe = replace(RECIPE, scratch=None, lora=Lora(rank=2, targets=["q_proj", "o_proj"]))
    with pytest.raises(BadInput, match=r"lora\.targets: the model has no linear layer 'q_proj'") as caught:
        finetune(data, recipe, tmp_path / "tuned", model=str(base.folder))
    assert "qkv_proj" in caught.value.hint
    assert not (tmp_path / "tuned").exists()


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_the_lines_of_a_log(data, tmp_path):
    (tmp_path / "mine.toml").write_text(BAR_RECIPE)
    ours, theirs = pty.openpty()
    words = ["train", "--data", data, "--recipe", tmp_path / "mine.toml", "--out", tmp_path / "tuned"]
    with subprocess.Popen(
        module_command("phi3flow", *words),
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal ends with the process
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    assert re.search(rb"\d+ of 60 steps, [\d.]+ a second", shown)
    assert b"tuned step     60/60  loss" in shown
