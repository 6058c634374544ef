"""Every verb in fresh environments, bare and with each extra: it works, or one sentence names the extra.

Models are trained, exported, served and asked by installed commands only. This module imports nothing of ours
but the list of verbs and the JSONL writer.
"""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from chromium import free_ports
from environments import clean_environment

from phi3flow.app.cli import VERBS
from phi3flow.core.jsonl import write_jsonl

pytestmark = pytest.mark.install

ENVIRONMENTS = ((), ("train",), ("serve",), ("openvino",), ("azure",), ("ui",), ("dev",))
READY_SECONDS, STOP_SECONDS = 120, 30
CLOUD = {"PHI3FLOW_AZURE_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000"}
KEY = {
    "PHI3FLOW_ENDPOINT_KEY": "of-the-install-tests",
    "PF_ENCRYPTION_KEY": "Y2hhdHMgYXJlIG5vdCBzZWNyZXRzIGluIGEgdGVzdCE=",
}
RECIPE = """
steps = 5
batch_size = 4
learning_rate = 3e-3
max_length = 64
eval_every = 5
precision = "fp32"

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 1
heads = 2
context = 512
dropout = 0.0
"""


class Use(NamedTuple):
    """How a verb is tried: its words, the extras it needs, what it ends with, and whether it takes long.

    {URL}, {MODEL}, {RUN}, {CHATS} and the like stand for what the fixtures made. One that takes long is tried
    here only where an extra is missing; further down are the others.
    """

    words: str
    needs: tuple[str, ...] = ()
    ends: tuple[int, ...] = (0,)
    says: str = ""
    long: bool = False


NOT_CHECKABLE = 4
VERDICTS = (0, 3, 4)  # promote, hold, not enough data
USES = {
    "prepare": Use("prepare {CHATS} --out new-data --near-duplicates report"),
    "feedback": Use("feedback {RUN}", ends=(2,), says="no chats and no votes"),
    "distill": Use("distill --from {QUESTIONS} --teacher phi3-tuned"),
    "train": Use("train --data {DATA} --recipe {RECIPE} --out new-model", ("train",)),
    "export": Use("export {MODEL} --format openvino --out new-export", ("openvino", "serve"), long=True),
    "base": Use("base --pretrained --out new-pretrained", ("train",), long=True),
    "toy-base": Use("toy-base --out new-base", ("train",), long=True),
    "serve": Use("serve {MODEL} --port 0", ("serve",), long=True),
    "verify": Use("verify {MODEL} --endpoint {URL}", ends=(0, NOT_CHECKABLE)),  # no base, and no answer ends
    "connect": Use("connect mine --endpoint {URL} --contract openai"),
    "evaluate": Use("evaluate --data {QUESTIONS} --connection phi3-tuned --out new-evaluation"),
    "compare": Use(
        "compare --data {QUESTIONS} --base phi3-tuned --tuned phi3-tuned --packs none --out new-comparison",
        ends=VERDICTS,
    ),
    "compare-answers": Use(
        "compare-answers --data {QUESTIONS} --base {ANSWERS} --tuned {ANSWERS} --out new-report",
        ends=VERDICTS,
    ),
    "verdict": Use("verdict {JUDGMENTS}", ends=VERDICTS),
    "up": Use("up {RUN}", ("ui", "serve"), long=True),
    "chat": Use("chat Hello --connection phi3-tuned"),
    "azure": Use("azure status", ("azure",), ends=(1, 2), says="az login"),
    "foundry": Use("foundry list", ("azure",), ends=(1, 2), says="az login"),
    "migrate": Use("migrate check {RUN}", ends=(1, 2), says=".venv-agents is missing"),
    "demo": Use("demo --out new-demo", ("train", "serve"), long=True),
    "init": Use("init"),
    "env": Use("env"),
    "doctor": Use("doctor"),
}


@pytest.fixture(scope="session")
def made(installed, tmp_path_factory):
    """What the uses name: data that the bare command prepared, and a tiny model that `train` trained."""
    folder = tmp_path_factory.mktemp("made")
    chats = [
        [
            {"role": "user", "content": f"What is {i} plus one?"},
            {"role": "assistant", "content": f"It is {i + 1}."},
        ]
        for i in range(120)
    ]
    write_jsonl(folder / "chats.jsonl", [{"messages": messages} for messages in chats])
    write_jsonl(folder / "questions.jsonl", [{"messages": messages} for messages in chats[:3]])
    write_jsonl(folder / "answers.jsonl", [{"line": line, "answer": "It is 1."} for line in (1, 2, 3)])
    votes = [{"id": str(i), "preference": 1, "base_chars": 9, "tuned_chars": 9} for i in range(30)]
    write_jsonl(folder / "judgments.jsonl", votes)
    (folder / "recipe.toml").write_text(RECIPE)
    words = ["prepare", "chats.jsonl", "--out", "data", "--near-duplicates", "report"]
    done(installed().run(*words, cwd=folder))
    words = ["train", "--data", "data", "--recipe", "recipe.toml", "--out", "run/tuned"]
    done(installed("train").run(*words, cwd=folder))
    return folder


@pytest.fixture(scope="session")
def endpoint(installed, made):
    """The URL under which the environment with `serve` serves that model."""
    (port,) = free_ports(1)
    words = ["serve", made / "run" / "tuned", "--port", port]
    with running(installed("serve"), words, made, f"http://127.0.0.1:{port}/health/ready"):
        yield f"http://127.0.0.1:{port}/v1/chat/completions"


@pytest.fixture(params=ENVIRONMENTS, ids=lambda extras: "-".join(extras) or "bare", scope="session")
def environment(request, installed):
    return installed(*request.param)


@pytest.fixture(scope="session")
def projects(tmp_path_factory):
    """A project folder for each environment, with a connection in it."""
    return {}


@pytest.fixture
def project(projects, environment, endpoint, tmp_path_factory):
    if environment not in projects:
        projects[environment] = tmp_path_factory.mktemp("project")
        words = ["connect", "phi3-tuned", "--endpoint", endpoint, "--contract", "openai"]
        done(environment.run(*words, cwd=projects[environment], **KEY))
    return projects[environment]


def test_every_verb_has_a_use():
    assert set(USES) == set(VERBS)


@pytest.mark.parametrize("verb", USES)
def test_its_help_needs_no_extra(verb, environment, tmp_path):
    asked = environment.run(verb, "--help", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() and not asked.stderr


@pytest.mark.parametrize("verb", USES)
def test_it_works_or_one_sentence_names_the_extra(verb, environment, made, endpoint, project):
    use = USES[verb]
    missing = [extra for extra in use.needs if extra not in environment.extras]
    if use.long and not missing:
        pytest.skip("takes long; it has a test of its own")
    places = {
        "URL": endpoint,
        "RUN": made / "run",
        "MODEL": made / "run" / "tuned",
        "DATA": made / "data",
        "CHATS": made / "chats.jsonl",
        "QUESTIONS": made / "questions.jsonl",
        "ANSWERS": made / "answers.jsonl",
        "JUDGMENTS": made / "judgments.jsonl",
        "RECIPE": made / "recipe.toml",
    }
    words = [word.format(**places) for word in use.words.split()]
    tried = environment.run(*words, cwd=project, **KEY, **CLOUD)
    assert "Traceback" not in tried.stderr, tried.stderr
    if missing:
        names_the_extra(tried, missing)
    else:
        assert tried.returncode in use.ends, tried.stderr
        assert use.says in tried.stderr
        assert "phi3flow[" not in tried.stderr


def names_the_extra(tried, missing):
    """It failed with one sentence, and a hint that installs one of the extras."""
    assert tried.returncode == 1, tried.stderr
    errors = [line for line in tried.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, tried.stderr
    named = re.findall(r"pip install 'phi3flow\[(\w+)]'", tried.stderr)
    assert named and set(named) <= set(missing), tried.stderr


def test_doctor_names_the_extras_that_are_missing_and_no_makefile(installed, tmp_path):
    examined = installed().run("doctor", "--json", cwd=tmp_path, **KEY)
    packages = next(c for c in json.loads(examined.stdout)["checks"] if c["name"] == "packages")
    assert packages["fix"] == "pip install 'phi3flow[azure,distill,gguf,onnx,openvino,serve,train,ui]'"
    assert "make" not in packages["fix"]


def test_torchrun_trains_beside_a_folder_called_training(installed, made, tmp_path):
    """The line that docs/training.md gives."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    environment = installed("train")
    torchrun = [environment.folder / "bin" / "torchrun", "--nproc-per-node", "2", "--no-python", "phi3flow"]
    words = ["train", "--data", made / "data", "--recipe", made / "recipe.toml", "--out", "tuned"]
    paths = f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    trained = subprocess.run(
        [*torchrun, *words],
        cwd=tmp_path,
        env=clean_environment() | {"PATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


def test_up_serves_the_page_beside_folders_of_our_names(installed, made, tmp_path):
    for name in ("training", "evaluation", "flows", "ui"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    names = ("endpoint_port", "base_port", "flow_port", "base_flow_port", "ui_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    variables = {f"PHI3FLOW_{name.upper()}": str(port) for name, port in ports.items()}
    page = f"http://127.0.0.1:{ports['ui_port']}/_stcore/health"
    environment = installed("ui", "serve")
    with running(environment, ["up", made / "run"], tmp_path, page, **variables) as served:
        served.send_signal(signal.SIGINT)
        assert served.wait(STOP_SECONDS) == 130


def test_export_and_the_openvino_engine(installed, made, tmp_path):
    """The converter comes with the command of docs/install.md."""
    environment = installed("openvino", "serve")
    constraints = Path(__file__).parents[2] / "constraints.txt"
    environment.pip("--no-deps", "--constraint", constraints, "optimum-intel")
    words = ["export", made / "run" / "tuned", "--format", "openvino", "--out", "exported"]
    done(environment.run(*words, cwd=tmp_path))
    (port,) = free_ports(1)
    words = ["serve", "exported", "--engine", "openvino", "--port", port]
    with running(environment, words, tmp_path, f"http://127.0.0.1:{port}/health/ready"):
        endpoint = f"http://127.0.0.1:{port}/score"
        verified = environment.run(
            "verify", "exported", "--endpoint", endpoint, "--json", cwd=tmp_path, **KEY
        )
    assert verified.returncode == NOT_CHECKABLE, verified.stderr
    results = {check["name"]: check["result"] for check in json.loads(verified.stdout)["checks"]}
    assert results["text"] == "pass" and "fail" not in results.values()


def test_the_demo_runs_from_a_wheel(installed, tmp_path):
    """It makes its chats and its base model, which a wheel could not: minutes."""
    environment = installed("train", "serve")
    ports = dict(zip(("endpoint_port", "base_port"), free_ports(2), strict=True))
    variables = {f"PHI3FLOW_{name.upper()}": str(port) for name, port in ports.items()}
    with subprocess.Popen(
        environment.command("demo", "--json"),
        cwd=tmp_path,
        env=clean_environment() | variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        printed, _ = demo.communicate(timeout=1800)
    assert demo.returncode == 0
    assert json.loads(printed)["verdict"] == "promote"
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()


def done(ran):
    assert ran.returncode == 0, ran.stderr
    return ran


@contextmanager
def running(environment, words, cwd, ready, **variables):
    """The verb as a server, from the moment that GET `ready` answers; it is interrupted at the end."""
    log = cwd / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            environment.command(*words),
            cwd=cwd,
            env=clean_environment() | KEY | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(ready):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield server
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(STOP_SECONDS)


def answers(url):
    try:
        return requests.get(url, timeout=2).ok
    except requests.ConnectionError:
        return False
