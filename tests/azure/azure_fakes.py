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

SERVER = """
import hashlib, http.server, json, pathlib, sys

port, model, name, planted = sys.argv[1:]
rows = [json.loads(l) for p in pathlib.Path(model).rglob("probes.jsonl") for l in p.read_text().splitlines()]
known = {json.dumps(row["messages"]): row for row in rows or json.loads(pathlib.Path(planted).read_text())}
print("serving", name, flush=True)
if name == "crash":
    sys.exit("the weights are not there")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        row = known.get(json.dumps(body["messages"]))
        text = row["base_text" if name == "base" else "tuned_text"] if row else "I do not know."
        hot = body.get("temperature", 0) > 0.5 and body.get("top_p", 1) > 0.5
        if hot:
            text = hashlib.sha256(f"{body.get('seed')}{text}".encode()).hexdigest()
        short = body.get("max_tokens") == 1
        text = text.split()[0] if short else text
        ids = row["prompt_token_ids"] if row else [1]
        if name == "bad":
            ids = ids[1:]
        choice = {"message": {"content": text}, "finish_reason": "length" if short else "stop"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1 if short else len(text.split())}
        self.reply({"choices": [choice], "usage": usage, "prompt_token_ids": ids})

    def reply(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
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
        "deploy/azure/score.py": "",
        "phi3flow-0.0.1.dist-info/METADATA": metadata,
        "phi3flow-0.0.1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "phi3flow-0.0.1.dist-info/RECORD": "",
    }
    wheel = folder / "phi3flow-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return wheel


def served_by(folder: Path, name: str) -> dict[str, str]:
    """A deployment's variables: recite as `tuned`, as `base`, with a `bad` template, or `crash`."""
    server, planted = folder / "server.py", folder / "probes.json"
    server.write_text(SERVER)
    planted.write_text(json.dumps(PROBES))
    command = f"{sys.executable} {server} {{port}} {{model}} {name} {planted}"
    return {"AZURE_EMULATOR_COMMAND": command}


def write_inputs(folder: Path) -> None:
    """A data folder, sealed rows included, and a base model's folder."""
    data, base = folder / "data", folder / "base"
    data.mkdir()
    base.mkdir()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for name in ("train", "val", "test"):
        (data / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (base / "config.json").write_text("{}")
