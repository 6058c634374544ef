"""Issue: two commands wrote one folder and mixed their results; kill -9 left what the next run refused."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from counting import chat

from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput
from phi3flow.core.folder_lock import writing
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import read_manifest
from training.data.prepare import prepare

HOLD = (
    "import sys; from pathlib import Path; from phi3flow.core.folder_lock import writing\n"
    "with writing(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)
# What each command that writes a folder is given; {out} is the folder that another process holds.
COMMANDS = {
    "prepare": "prepare {out}/chats.jsonl --out {out}",
    "train": "train --data {out} --recipe tiny-cpu --out {out}",
    "toy-base": "toy-base --out {out}",
    "base": "base --pretrained --out {out}",
    "export": "export {out} --format openvino --out {out}",
    "evaluate": "evaluate --data {out}/test.jsonl --connection phi3-tuned --out {out}",
    "compare": "compare --data {out}/test.jsonl --base phi3-base --tuned phi3-tuned --out {out}",
    "compare-answers": "compare-answers --data {out}/test.jsonl --base {out}/b --tuned {out}/t --out {out}",
    "demo": "demo --out {out}",
    "foundry run": "foundry run --data {out}/test.jsonl --out {out}",
}


@contextmanager
def another_process(folder):
    """A process that writes `folder` until it is told to end."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_the_process_that_writes_its_folder(tmp_path, capsys, command):
    out = tmp_path / "out"
    with another_process(out) as child:
        before = sorted(tmp_path.rglob("*"))
        assert main(COMMANDS[command].format(out=out).split()) == 2
        assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().err
    assert f"{out}: another run is writing there, process {child.pid}: phi3flow {out}\n" in said
    assert "hint: wait for it, or write elsewhere" in said


def test_up_names_the_other_one(tmp_path, capsys):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text("{}")
    with another_process(tmp_path / "up") as child:
        assert main(["up", str(tmp_path)]) == 2
    assert f"{tmp_path / 'up'}: another run is writing there, process {child.pid}" in capsys.readouterr().err


def test_kill_9_releases_a_folder_at_once_and_the_next_run_removes_the_lock(tmp_path):
    with another_process(tmp_path / "out") as child:
        child.kill()
        child.wait()
        assert (tmp_path / ".out.lock").exists()
        with writing(tmp_path / "out"):
            assert str(os.getpid()) in (tmp_path / ".out.lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_thread_may_take_its_folder_again_and_another_thread_may_not(tmp_path):
    refused = []

    def other():
        try:
            with writing(tmp_path / "link"):
                pass
        except BadInput as error:
            refused.append(str(error))

    (tmp_path / "link").symlink_to(tmp_path / "out")
    with writing(tmp_path / "out"), writing(tmp_path / "link"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}:" in refused[0]
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_no_folder_stays_that_was_made_for_a_lock(tmp_path):
    with writing(tmp_path / "new" / "out"):
        assert (tmp_path / "new" / ".out.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_ten_kills_of_prepare_leave_nothing_that_is_in_the_way(tmp_path):
    source = tmp_path / "chats.jsonl"
    write_jsonl(source, [chat(i) for i in range(200)])
    out = tmp_path / "data"
    started = time.monotonic()
    prepare([str(source)], tmp_path / "whole", near_duplicates="report")
    whole = time.monotonic() - started
    fork = multiprocessing.get_context("fork")
    for i in range(10):
        child = fork.Process(target=prepare, args=([str(source)], out), kwargs={"near_duplicates": "report"})
        child.start()
        time.sleep(whole * (i + 1) / 10)
        child.kill()
        child.join()
        assert not out.exists() or read_manifest(out), "a part of the data has appeared"
    prepare([str(source)], out, near_duplicates="report")
    assert (out / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "data", "whole"]


def test_prepare_fills_an_empty_folder_that_is_there_already(tmp_path):
    source = tmp_path / "chats.jsonl"
    write_jsonl(source, [chat(i) for i in range(200)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "empty")
    prepare([str(source)], tmp_path / "data", near_duplicates="report")
    assert read_manifest(tmp_path / "empty")["kind"] == "data"
    assert (tmp_path / "empty").stat().st_mode & 0o077 == 0o055
