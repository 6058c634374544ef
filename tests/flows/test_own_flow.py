"""A person's own flow in `up`, `evaluate` and `compare`: served, and asked as everything else is."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from chromium import free_ports
from headless import KEY, bare, phi3flow
from loopback import JsonAnswers, serving
from up_process import asked_directly, interrupt, running_up

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.flow_callers import known_key
from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import resolve_chat_flow
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import Endpoint

DAG = """
inputs:
  question: {type: string, is_chat_input: true}
  chat_history: {type: list, default: [], is_chat_history: true}
  system: {type: string, default: "Be yourself."}
outputs:
  answer: {type: string, reference: "${say.output}", is_chat_output: true}
nodes:
- name: say
  type: python
  source: {type: code, path: say.py}
  inputs: {connection: my-endpoint, question: "${inputs.question}", system: "${inputs.system}"}
"""
NODE = """
import requests
from promptflow.connections import CustomConnection
from promptflow.core import tool


@tool
def say(connection: CustomConnection, question: str, system: str) -> str:
    messages = [{"role": "user", "content": question}]
    headers = {"Authorization": "Bearer " + connection.secrets["key"]}
    reply = requests.post(connection.configs["endpoint"], json={"messages": messages}, headers=headers)
    return f"{system} " + reply.json()["choices"][0]["message"]["content"]
"""


class Echo(JsonAnswers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"data": [{"id": "echo"}]})

    def do_POST(self):
        asked = self.asked()["messages"][-1]["content"]
        told = asked.upper() if self.path.startswith("/loud") else asked
        self.answer(200, {"choices": [{"message": {"content": told}}]})


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows") / "mine"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(DAG)
    (folder / "say.py").write_text(NODE)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with two connections, and the environment in which they can be read."""
    folder = tmp_path_factory.mktemp("project")
    flow_port, base_flow_port = free_ports(2)
    environment = {
        "PF_ENCRYPTION_KEY": new_encryption_key(),
        "PHI3FLOW_ENDPOINT_KEY": KEY,
        "PHI3FLOW_FLOW_PORT": str(flow_port),
        "PHI3FLOW_BASE_FLOW_PORT": str(base_flow_port),
    }
    with serving(Echo) as server:
        for name, path in (("quiet", ""), ("loud", "/loud")):
            url = f"http://127.0.0.1:{server.server_port}{path}/v1/chat/completions"
            stored = phi3flow(folder, "connect", name, "--endpoint", url, **environment)
            assert stored.returncode == 0, stored.stderr
        (folder / "test.jsonl").write_text("".join(json.dumps(row(word)) + "\n" for word in ("one", "two")))
        yield folder, environment


def row(word):
    turns = (("user", word), ("assistant", f"Be yourself. {word}"))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.mark.slow
def test_evaluate_and_compare_ask_through_it(project, flow):
    folder, environment = project
    through = ("--data", "test.jsonl", "--flow", str(flow), "--json")
    done = phi3flow(folder, "evaluate", *through, "--connection", "quiet", "--out", "alone", **environment)
    assert done.returncode == 0, done.stderr
    evaluated = json.loads(done.stdout)
    assert evaluated["metrics"]["exact_match"] == 1.0 and evaluated["flow"]["path"] == flow.as_posix()
    check = {"id": "1", "slice": "self", "question": "Who?", "must_contain": ["Be yourself."]}
    (folder / "self.jsonl").write_text(json.dumps(check))
    packs = ("--packs", "none", "--pack", "self.jsonl", "--text-metrics", "none")
    sides = ("--base", "loud", "--tuned", "quiet", *packs)
    done = phi3flow(folder, "compare", *through, *sides, "--out", "both", **environment)
    report = json.loads(done.stdout)
    assert done.returncode in {0, 3, 4} and report["failed"] == 0, done.stderr
    assert report["lineage"]["system prompt of the packs"] == "Be yourself."
    assert report["packs"]["self"]["tuned"] == 1.0
    assert [report[side]["exact_match"] for side in ("base", "tuned")] == [0.0, 1.0]
    kinds = [
        artifact["kind"] for artifact in json.loads((folder / "both/manifest.json").read_text())["inputs"]
    ]
    assert "flow" in kinds and KEY not in (folder / "both/report.json").read_text()


@pytest.mark.slow
def test_up_serves_it_over_a_stored_connection(project, flow, monkeypatch):
    folder, environment = project
    for name, value in (bare(folder) | environment).items():
        monkeypatch.setenv(name, value)
    names = ("flow", "ui")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = ("--connection", "quiet", "--flow", flow)
    with running_up(folder / "kept", folder, ports, *options) as process:
        key = known_key(Settings(flow_port=ports["flow"], promptflow_home=folder / ".phi3flow/promptflow"))
        endpoint = Endpoint(f"http://127.0.0.1:{ports['flow']}/score", key, "promptflow")
        assert endpoint.system_prompt() == "Be yourself."
        assert list(endpoint.stream([{"role": "user", "content": "hi"}])) == [" hi"]
        assert asked_directly(folder, ports["flow"], "hi") == "Be yourself. hi"
        interrupt(process)
    assert (folder / "kept" / "chat.sqlite").exists() or (folder / "kept" / "up").is_dir()


@pytest.mark.slow
def test_a_run_is_compared_through_it_with_its_own_models(demo_run, flow, tmp_path):
    environment = ports_of_a_run() | {"PF_ENCRYPTION_KEY": new_encryption_key()}
    options = ("--flow", str(flow), "--packs", "none", "--rows", "40", "--out", str(tmp_path / "through"))
    done = phi3flow(tmp_path, "compare", str(demo_run), *options, "--json", **environment)
    assert done.returncode in {0, 3, 4}, done.stderr
    report = json.loads(done.stdout)
    assert (report["expected"], report["failed"]) == (40, 0)
    assert report["lineage"]["system prompt of the packs"] == "Be yourself."
    assert report["metrics"]["token_f1"]["tuned"] > report["metrics"]["token_f1"]["base"]
    recorded = (tmp_path / "through/direct/tuned.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in recorded]
    assert all(answer.startswith("Be yourself. ") for answer in answers)  # what the flow adds


@pytest.mark.slow
def test_the_page_of_a_run_chats_through_it(demo_run, flow, tmp_path, monkeypatch):
    for name, value in bare(tmp_path).items():
        monkeypatch.setenv(name, value)
    names = ("endpoint", "flow", "ui")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with running_up(demo_run, tmp_path, ports, "--flow", flow) as process:
        told = asked_directly(tmp_path, ports["flow"], "Who founded Microsoft?")
        assert told.startswith("Be yourself. ") and "Bill Gates" in told
        interrupt(process)


def ports_of_a_run():
    names = ("ENDPOINT_PORT", "BASE_PORT", "FLOW_PORT", "BASE_FLOW_PORT")
    ports = free_ports(len(names))
    return {f"PHI3FLOW_{name}": str(port) for name, port in zip(names, ports, strict=True)}


def test_a_flow_that_cannot_be_asked_is_named_with_what_it_lacks(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "flow.dag.yaml").write_text(DAG.replace("question:", "text:", 1))
    with pytest.raises(BadInput, match="inputs: 'question' is missing"):
        resolve_chat_flow(own, tmp_path / "a")
    (own / "flow.dag.yaml").write_text(DAG.replace("answer:", "reply:", 1))
    with pytest.raises(BadInput, match="outputs: 'answer' is missing"):
        resolve_chat_flow(own, tmp_path / "b")
    second = "- name: two\n  type: python\n  inputs: {connection: other}\n"
    (own / "flow.dag.yaml").write_text(DAG + second)
    with pytest.raises(BadInput, match=r"several connections.*my-endpoint, other"):
        resolve_chat_flow(own, tmp_path / "c", connection="phi3-tuned")
