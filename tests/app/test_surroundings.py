"""Where phi3flow is started, and on what: public reports 14, 30, 31."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import lively_model, new_tokenizer, saved

from phi3flow.app.cli import main
from phi3flow.core.child_process import module_command

PHI3FLOW = Path(sys.executable).with_name("phi3flow")
CLONE = Path(__file__).parents[2]
NO_POSIX = """
import sys
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
from phi3flow.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("command", [[str(PHI3FLOW)], module_command("phi3flow")], ids=["verb", "child"])
def test_14_the_parent_folder_of_a_clone_hides_nothing(tmp_path, command):
    (tmp_path / "phi3flow").symlink_to(CLONE)
    ran = subprocess.run(
        [*command, "verdict", "missing.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: missing.jsonl") and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words", [["verdict", "x.jsonl"], ["serve", "x"], ["doctor"], ["--help"]], ids=" ".join
)
def test_31_without_posix_one_sentence_says_where_phi3flow_runs(tmp_path, words):
    ran = subprocess.run(
        [sys.executable, "-P", "-c", NO_POSIX, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    error, hint = ran.stderr.splitlines()
    assert error == "error: phi3flow runs on Linux and macOS only"
    assert hint.startswith("hint: on Windows in WSL: ")
    assert "WSL" in (CLONE / "docs" / "install.md").read_text(encoding="utf-8")


@pytest.fixture
def adapters(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tokenizer = new_tokenizer()
    base = saved(lively_model(tokenizer), tokenizer, tmp_path / "base model")
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "my lora")
    return tmp_path / "my lora"


def test_30_a_folder_of_adapters_is_named_with_the_command_that_merges_it(adapters, capsys, monkeypatch):
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", "k")
    said = []
    for words in (
        ["serve", str(adapters)],
        ["train", "--data", "d", "--recipe", "tiny-cpu", "--model", str(adapters), "--out", "o"],
    ):
        assert main(words) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    error, hint = said[0].splitlines()
    assert error.startswith(
        f"error: {adapters}: LoRA adapters of {adapters.parent / 'base model'}, not a model"
    )
    path = f"{PHI3FLOW.parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", hint.removeprefix("hint: ")], check=True, env=os.environ | {"PATH": path})
    merged = Path(f"{adapters}-merged")
    assert (merged / "config.json").is_file() and (merged / "tokenizer.json").is_file()
    assert not (merged / "adapter_config.json").exists()
