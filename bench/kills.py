"""Every command that writes a folder: ten times kill -9, then the same command again, then two of it at once.

    make bench-kills [ARGS="--kills 10 --only prepare train"]

A kill comes at a random moment of the command's own time. Afterwards the folder must be absent or usable, the
next run must give what an undisturbed one gives, and nothing else may lie about. Of two at once, one must win
and the other must name it. Ends with one JSON object, and with exit code 1 if anything of this fails.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.core.child_process import module_command
from phi3flow.core.jsonl import write_jsonl
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
BUSY = "another run is writing there"


class Command(NamedTuple):
    """A verb with its arguments, without --out; `results` are the files that are equal after every run."""

    words: tuple[str, ...]
    results: tuple[str, ...]


TEST = ("--data", "data/test.jsonl")
ANSWERS = ("--base", "answers.jsonl", "--tuned", "answers.jsonl")
COMMANDS = {
    "prepare": Command(
        ("prepare", "chats.jsonl", "--near-duplicates", "report"), ("train.jsonl", "val.jsonl", "test.jsonl")
    ),
    "train": Command(("train", "--data", "data", "--recipe", "mine.toml"), ("model.safetensors",)),
    "export": Command(
        ("export", "model", "--format", "openvino", "--int8"), ("openvino_model.xml", "openvino_model.bin")
    ),
    "export-gguf": Command(("export", "model", "--format", "gguf"), ("model-f16.gguf",)),
    "export-onnx": Command(
        (
            "export",
            "model",
            "--format",
            "onnx",
            "--weights",
            "int4",
            "--check",
            "data/test.jsonl",
            "--at-least",
            "0",
        ),
        ("model.onnx",),
    ),
    "evaluate": Command(("evaluate", *TEST, "--connection", "slow"), ()),
    "compare": Command(
        (
            *("compare", *TEST, "--base", "slow", "--tuned", "slow", "--force"),
            *("--packs", "none", "--text-metrics", "none"),
        ),
        (),
    ),
    "compare-answers": Command(
        ("compare-answers", *TEST, *ANSWERS, "--text-metrics", "none", "--force"), ("report.md",)
    ),
    "verdict": Command(("verdict", "judged", "--force"), ("report.md",)),
    "base": Command(("base", "--pretrained"), ("model.safetensors",)),
    "toy-base": Command(("toy-base",), ("model.safetensors",)),
}


class Ended(NamedTuple):
    code: int
    said: str


def start(project, command, out):
    words = [*command.words, "--out", out]
    return subprocess.Popen(
        module_command("phi3flow", *words),
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    said = process.communicate()[1]
    return Ended(process.returncode, said)


def digests(folder, command):
    return {name: sha256_of(folder / name) for name in command.results}


def is_whole(folder, whole, command):
    """A kill can come after the folder is complete: the same files, and equal results."""
    missing = {path.name for path in whole.iterdir()} - {path.name for path in folder.glob("*")}
    return not missing and digests(folder, command) == digests(whole, command)


def killed(project, name, command, kills):
    """How often something was wrong, and the seconds of a run that nobody disturbed."""
    began, wrong = time.monotonic(), []
    whole = finish(start(project, command, f"whole/{name}"))
    seconds = time.monotonic() - began
    if whole.code not in {0, 3, 4}:
        raise SystemExit(f"{name}: exit code {whole.code}: {whole.said}")
    again, undisturbed = project / "again" / name, project / "whole" / name
    draw = random.Random(name)
    for _ in range(kills):
        process = start(project, command, f"again/{name}")
        time.sleep(draw.uniform(0.3, 1.0) * seconds)
        process.kill()
        finish(process)
        if command.results and is_whole(again, undisturbed, command):
            shutil.rmtree(again)  # for the next kill: some commands refuse to write over it
    last = finish(start(project, command, f"again/{name}"))
    if last.code != whole.code or not is_whole(again, undisturbed, command):
        wrong.append(f"after the kills: exit code {last.code}: {last.said[-500:]}")
    left = {path.name for path in (project / "again").iterdir()} - COMMANDS.keys()
    if left:
        wrong.append(f"left: {sorted(left)}")
    return wrong, seconds


def two_at_once(project, name, command):
    """One must do it, the other must say who does."""
    both = [finish(process) for process in [start(project, command, f"both/{name}") for _ in range(2)]]
    refused = [ended for ended in both if ended.code == 2 and BUSY in ended.said]
    done = [ended for ended in both if ended.code in {0, 3, 4}]
    return [] if done and len(done) + len(refused) == 2 else [f"two at once: {both}"]


def project_in(folder):
    """Chats, a recipe, a trained model, answers and a connection to an endpoint that is slow."""
    rows = [{"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."} for n in range(200)]
    write_jsonl(folder / "chats.jsonl", rows)
    (folder / "mine.toml").write_text(RECIPE)
    for name, out in (("prepare", "data"), ("train", "model")):
        finish(start(folder, COMMANDS[name], out))
    asked = [json.loads(line) for line in (folder / "data" / "test.jsonl").read_text().splitlines()]
    write_jsonl(
        folder / "answers.jsonl",
        [{"line": number, "answer": row["messages"][-1]["content"]} for number, row in enumerate(asked, 1)],
    )
    finish(start(folder, COMMANDS["compare-answers"], "judged"))
    for name in ("whole", "again", "both"):
        (folder / name).mkdir()


def slow_endpoint(project):
    script = Path(__file__).with_name("slow_endpoint.py")
    server = subprocess.Popen([sys.executable, script, "0.2"], stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}/score"
    words = ("connect", "slow", "--endpoint", url)
    subprocess.run(module_command("phi3flow", *words), cwd=project, check=True, stdout=subprocess.DEVNULL)
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    args = parser.parse_args()
    os.environ |= {"PF_ENCRYPTION_KEY": new_encryption_key(), "PHI3FLOW_ENDPOINT_KEY": "k"}
    os.environ["PHI3FLOW_TRACK"] = "0"
    wrong, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        project_in(project)
        server = slow_endpoint(project)
        for name in args.only:
            wrong[name], seconds[name] = killed(project, name, COMMANDS[name], args.kills)
            wrong[name] += two_at_once(project, name, COMMANDS[name])
            print(
                f"{name}: {seconds[name]:.1f} s, {wrong[name] or 'nothing wrong'}",
                file=sys.stderr,
                flush=True,
            )
        server.kill()
    count = sum(map(len, wrong.values()))
    figures = {"bench": "kills", "ours": count, "baseline": 0, "ratio": None, "kills": args.kills}
    return figures | {"seconds": {name: round(took, 1) for name, took in seconds.items()}, "wrong": wrong}


if __name__ == "__main__":
    result = main()
    print(json.dumps(result))
    sys.exit(1 if result["ours"] else 0)
