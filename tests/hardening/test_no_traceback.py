"""Issue: a full disk, pickle weights, a broken database or a number of 400 digits ended in a traceback."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest
import torch
from cryptography.fernet import Fernet
from tiny import lively_model, new_tokenizer, saved

from evaluation.asking.answer_file import open_answers
from evaluation.scored_rows import chats_in
from evaluation.verdict.gate import load_gate
from phi3flow.app.cli import main, trouble_of_the_machine
from phi3flow.app.run_folder import recipe_for
from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import resolve_chat_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import read_manifest
from training.models.loading import load_model, load_tokenizer
from training.recipes.recipe import load_recipe


def no_file_above(limit):
    """For a child process: the kernel refuses larger files, as a full disk does (EFBIG for ENOSPC)."""

    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return apply


def run(*words, folder, environment=None, limit=resource.RLIM_INFINITY):
    """One sentence and its hint, or more lines if it was a traceback."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "phi3flow", *words],
        cwd=folder,
        env=os.environ | (environment or {}),
        preexec_fn=no_file_above(limit),
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_a_full_disk_is_one_sentence(tmp_path):
    code, said = run("init", folder=tmp_path, limit=10)
    assert code == 1
    assert "Traceback" not in said
    assert said.startswith("error: ") and "file too large" in said
    assert "hint: df -h" in said


def test_a_disk_that_nobody_may_write_is_one_sentence(capsys):
    assert main(["demo", "--out", "/sys/demo"]) == 1
    said = capsys.readouterr().err
    assert "error: /sys/demo: " in said


@pytest.mark.parametrize("state", ["broken", "locked"])
def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path, state):
    home = tmp_path / "home"
    home.mkdir()
    store = home / "pf.sqlite"
    if state == "broken":
        store.write_bytes(b"this is no database" * 100)
    keys = {"PF_ENCRYPTION_KEY": Fernet.generate_key().decode(), "PHI3FLOW_PROMPTFLOW_HOME": str(home)}
    data = write_chats(tmp_path / "test.jsonl")
    with sqlite3.connect(store) as database:
        if state == "locked":
            database.execute("BEGIN EXCLUSIVE")
        words = ("--data", str(data), "--connection", "phi3-tuned", "--out", "evaluation")
        code, said = run("evaluate", *words, folder=tmp_path, environment=keys)
    assert code == 1
    assert "Traceback" not in said
    assert "error: a database cannot be used: " in said


def write_chats(path):
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "She."}]
    write_jsonl(path, [{"messages": turns}])
    return path


class Printed:
    """What a pickle may do when it is read."""

    def __reduce__(self):
        return print, ("this pickle has run",)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = new_tokenizer()
    return saved(lively_model(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def damaged(model, tmp_path):
    """A copy of the model's folder, in which a file may be replaced."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("pickle", ["code", "garbage", "nothing"])
def test_pickle_weights_are_one_sentence_and_do_not_run(damaged, capsys, pickle):
    (damaged / "model.safetensors").unlink()
    weights = damaged / "pytorch_model.bin"
    if pickle == "code":
        torch.save({"model.norm.weight": Printed()}, weights)
    else:
        weights.write_bytes(b"garbage" * 9 if pickle == "garbage" else b"")
    with pytest.raises(BadInput, match=str(damaged)):
        load_model(str(damaged))
    assert "this pickle has run" not in capsys.readouterr().out


BROKEN = {
    "list": "[]",
    "type": '{"model_type": 3}',
    "braces": "{" * 100_000,
    "deep": '{"a": ' * 100_000,
    "nul": "\x00",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    ("name", "loading"),
    [("config.json", load_model), ("tokenizer.json", load_tokenizer)],
    ids=["config", "tokenizer"],
)
def test_a_broken_file_of_a_model_is_one_sentence(damaged, name, loading, content):
    (damaged / name).write_text(content)
    with pytest.raises(BadInput, match=str(damaged)):
        loading(str(damaged))


@pytest.mark.parametrize(
    "content",
    [
        *[b"\xff\xfe\x00", b"{", b"[]", b"[" * 100_000, b"\xff"],
        *[
            b'{"inputs": null}',
            b'{"inputs": [1]}',
            b'{"outputs": [{"kind": "data", "path": "a", "sha256": 1}]}',
        ],
    ],
)
def test_a_broken_manifest_is_one_sentence(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"manifest\.json: not "):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{{{",
        "[]",
        "nodes: 1",
        "nodes: [1]",
        "nodes: null",
        "x: \0",
        "nodes: []\nnodes: []",
        "!!python/x 1",
        "[" * 9999,
    ]
    + [f"nodes: []\nadditional_includes: {wrong}" for wrong in ("5", "[1]", "['']")]
    + ["inputs: [question]\nnodes: []", "nodes: [{inputs: [1]}]", "nodes: [{inputs: {connection: [a]}}]"],
)
def test_a_broken_flow_is_one_sentence(tmp_path, content):
    (tmp_path / "flow.dag.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"flow\.dag\.yaml: "):
        resolve_chat_flow(tmp_path, tmp_path / "resolved")


@pytest.mark.parametrize(
    "content", [b"\xff\xff = 1", b"steps = " + b"[" * 100_000, b"steps = " + b"9" * 400, b"steps = nan"]
)
@pytest.mark.parametrize("load", [lambda path: load_recipe(str(path)), load_gate], ids=["recipe", "gate"])
def test_a_broken_recipe_or_gate_is_one_sentence(tmp_path, load, content):
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"own\.toml"):
        load(path)


@pytest.mark.parametrize("field", ["tokens", "seconds"])
def test_a_number_of_400_digits_in_recorded_answers_is_named(tmp_path, field):
    chats = chats_in(write_chats(tmp_path / "test.jsonl"))
    answers = tmp_path / "answers.jsonl"
    answers.write_text(f'{{"line": 1, "answer": "She.", "{field}": {"9" * 400}}}\n')
    with pytest.raises(BadInput, match=rf"answers\.jsonl:1: {field}: must be a number from 0"):
        open_answers(answers, chats)


@pytest.mark.parametrize(
    "bug", [ZeroDivisionError(), FileNotFoundError(2, "gone", "x"), KeyError("x")], ids=str
)
def test_a_bug_keeps_its_traceback(bug):
    """One sentence would hide where it is."""
    with pytest.raises(type(bug)):
        trouble_of_the_machine(bug)


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        *[(broken, "small-cpu") for broken in ("{", "[]", "[" * 100_000, '{"hidden_size": "a"}')],
        ('{"hidden_size": 4000, "max_position_embeddings": "x"}', "phi3-mini-4k-lora"),
    ],
)
def test_a_broken_base_beside_the_data_is_no_traceback_of_prepare(tmp_path, config, recipe):
    (tmp_path / "config.json").write_text(config)
    assert recipe_for(tmp_path) == recipe
