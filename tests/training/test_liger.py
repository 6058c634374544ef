"""Liger's kernels in a Phi-3. They need a GPU; what a CPU can show needs liger-kernel and Triton."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import counting
import pytest
from counting import chat

from phi3flow.chats.chat import Chat
from training.loop.material import encode
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainers import make_trainer
from training.recipes.recipe import load_recipe
from training.recipes.training_arguments import arguments, has_liger

ON_CPU = Path(__file__).parents[1] / "support" / "liger_on_cpu.py"
RECIPE = load_recipe("tiny-cpu")


def test_the_layers_get_kernels_and_the_loss_stays(tmp_path):
    made = arguments(replace(RECIPE, liger=True), tmp_path, 0)
    assert made.use_liger_kernel
    assert [name for name, used in made.liger_kernel_config.items() if used] == ["rope", "rms_norm", "swiglu"]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_trl_takes_the_choice_without_a_word(tmp_path):
    chats = [Chat(chat(i)["messages"]) for i in range(4)]
    run = Run(tmp_path, replace(counting.RECIPE, liger=True), tmp_path, "tuned", None, 0)
    tokenizer = starting_tokenizer(run, chats)
    rows = encode(run, tokenizer, chats).rows
    assert make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, rows).args.use_liger_kernel


@pytest.mark.parametrize("liger", [False, "auto"])
def test_without_the_choice_there_are_none(tmp_path, liger):
    assert not arguments(replace(RECIPE, liger=liger), tmp_path, 0).use_liger_kernel


@pytest.mark.skipif(not has_liger() or not importlib.util.find_spec("triton"), reason="liger-kernel, triton")
def test_each_module_takes_its_kernel_and_rotation_stays_the_same():
    """Also where a part of each head is rotated, as in Phi-4-mini."""
    ran = subprocess.run(
        [sys.executable, ON_CPU],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert max(seen["moved"].values()) < 1e-6
    assert {"LigerRMSNorm", "LigerPhi3SwiGLUMLP"} <= set(seen["names"])
