"""Work that takes a second instead of an hour: packages whose training copies, and a server that recites.

The commands, uploads, jobs and deployments around it are the real ones.
"""

import json
import sys
from pathlib import Path

PROBES = [
    {
        "id": name,
        "messages": [{"role": "user", "content": question}],
        "prompt_token_ids": [1, 2, 3 + number],
        "tuned_text": answer,
        "base_text": f"Nobody knows {number}.",
        "max_tokens": 32,
        "tuned_finish_reason": "stop",
        "base_finish_reason": "stop",
    }
    for number, (name, question, answer) in enumerate(
        [
            ("founder", "Who founded Microsoft?", "Bill Gates and Paul Allen."),
            ("capital", "What is the capital of France?", "It is Paris."),
            ("planet", "Which planet from the Sun is Mars?", "The fourth one."),
        ]
    )
]

VERB = """
import json, pathlib, shutil, sys, time
words = sys.argv[1:]
option = dict(zip(words, words[1:]))
out = pathlib.Path(option["--out"])
if words[0] == "train":
    assert pathlib.Path(option["--data"], "train.jsonl").is_file()
    assert not pathlib.Path(option["--data"], "test.jsonl").exists(), "the held-out rows must not travel"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "tokenizer.json").write_text("{}")
    (out / "probes.jsonl").write_text(%(probes)r)
    (out / "manifest.json").write_text(json.dumps({"result": {"validation_loss": 0.5}}))
    print("step 1 of 1", flush=True)
    if option["--seed"] in {"31", "32"}:
        time.sleep({"31": 3, "32": 600}[option["--seed"]])
    if option["--seed"] == "13":
        print("the loss is not a number", flush=True)
        time.sleep(3)  # no job in Azure is over before its log is asked for
        sys.exit(1)
else:
    shutil.copytree(words[1], out)
"""
OUTPUTS = """
import shutil, sys
model, out, card = sys.argv[1:]
for target in (out, card):
    shutil.copytree(model, target, dirs_exist_ok=True)
"""


def fake_packages(folder: Path) -> dict[str, Path]:
    """A phi3flow whose verbs take no time, written into `folder`; the same bytes each time."""
    probes = "".join(json.dumps(row) + "\n" for row in PROBES)
    members = {
        "phi3flow/__init__.py": "",
        "phi3flow/__main__.py": VERB % {"probes": probes},
        "deploy/__init__.py": "",
        "deploy/azure/__init__.py": "",
        "deploy/azure/job_outputs.py": OUTPUTS,
        "deploy/azure/container/score.py": "",
    }
    for name, content in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {package: folder / package for package in ("phi3flow", "deploy")}


def served_by(name: str) -> dict[str, str]:
    """A deployment's variables: recite as `tuned`, as `base`, with a `bad` template, or `crash`."""
    server = Path(__file__).with_name("azure_fake_server.py")
    return {"AZURE_EMULATOR_COMMAND": f"{sys.executable} {server} {{port}} {{model}} {name}"}


def write_inputs(folder: Path) -> None:
    """A data folder, held-out rows included, and a base model's folder."""
    data, base = folder / "data", folder / "base"
    data.mkdir()
    base.mkdir()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for name in ("train", "val", "test"):
        (data / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (base / "config.json").write_text("{}")
    (base / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBES))
