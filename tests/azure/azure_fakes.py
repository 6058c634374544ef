"""Work that takes a second instead of an hour: a wheel whose training copies, and a server that recites.

The commands, uploads, jobs and deployments around it are the real ones.
"""

import json
import sys
import zipfile
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
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
option = dict(zip(words, words[1:]))
out = pathlib.Path(option["--out"])
if words[0] == "train":
    assert pathlib.Path(option["--data"], "train.jsonl").is_file()
    assert not pathlib.Path(option["--data"], "test.jsonl").exists(), "the sealed rows must not travel"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "tokenizer.json").write_text("{}")
    (out / "probes.jsonl").write_text(%(probes)r)
    (out / "manifest.json").write_text(json.dumps({"result": {"validation_loss": 0.5}}))
    print("step 1 of 1", flush=True)
    if option["--seed"] == "13":
        sys.exit("the loss is not a number")
else:
    shutil.copytree(words[1], out)
"""
OUTPUTS = """
import shutil, sys
model, out, card = sys.argv[1:]
for target in (out, card):
    shutil.copytree(model, target, dirs_exist_ok=True)
"""


def fake_wheel(folder: Path) -> Path:
    """A phi3flow whose verbs take no time; the same bytes each time."""
    probes = "".join(json.dumps(row) + "\n" for row in PROBES)
    metadata = "Metadata-Version: 2.1\nName: phi3flow\nVersion: 0.0.1\n"
    members = {
        "phi3flow/__init__.py": "",
        "phi3flow/__main__.py": VERB % {"probes": probes},
        "deploy/__init__.py": "",
        "deploy/azure/__init__.py": "",
        "deploy/azure/job_outputs.py": OUTPUTS,
        "deploy/azure/container/score.py": "",
        "phi3flow-0.0.1.dist-info/METADATA": metadata,
        "phi3flow-0.0.1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "phi3flow-0.0.1.dist-info/RECORD": "",
    }
    wheel = folder / "phi3flow-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return wheel


def served_by(name: str) -> dict[str, str]:
    """A deployment's variables: recite as `tuned`, as `base`, with a `bad` template, or `crash`."""
    server = Path(__file__).with_name("azure_fake_server.py")
    return {"AZURE_EMULATOR_COMMAND": f"{sys.executable} {server} {{port}} {{model}} {name}"}


def write_inputs(folder: Path) -> None:
    """A data folder, sealed rows included, and a base model's folder."""
    data, base = folder / "data", folder / "base"
    data.mkdir()
    base.mkdir()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for name in ("train", "val", "test"):
        (data / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (base / "config.json").write_text("{}")
    (base / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBES))
