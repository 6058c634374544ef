"""Agent Framework's host beyond the answers of our flows: own flows, many at once, leaving readers, keys."""

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from both_hosts import ENVIRONMENT, ROOT, Request, both_hosts, needs_agents, without_times
from scripted_endpoint import KEY, scripted_endpoint
from waiting import until

from custom_connections.store import store_connection
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.phi3_contract import Endpoint

pytestmark = needs_agents
OWN_DAG = """
inputs:
  number: {type: int, default: 2}
  flag: {type: bool, default: false}
  what: {type: object}
outputs:
  doubled: {type: int, reference: "${double.output.value}"}
  deep: {type: string, reference: "${double.output.list[1].name}"}
  both: {type: object, reference: "${join.output}"}
  said: {type: object, reference: "${inputs.what}"}
  fixed: {type: string, reference: always}
nodes:
- name: double
  type: python
  source: {type: code, path: double.py}
  inputs: {number: "${inputs.number}", factor: "2"}
- name: later
  type: python
  source: {type: code, path: later.py}
  inputs: {flag: "${inputs.flag}", what: "${inputs.what}", note: ""}
- name: join
  type: python
  source: {type: code, path: join.py}
  inputs: {a: "${double.output.value}", b: "${later.output}"}
- name: total
  type: python
  source: {type: code, path: total.py}
  inputs: {all: "${join.output}"}
  aggregation: true
"""
OWN_FILES = {
    "double.py": """
from promptflow.core import tool
@tool
def double(number: int, factor: int) -> dict:
    if number == 13:
        raise ValueError("thirteen")
    return {"value": number * factor, "list": [{}, {"name": str(number)}] if number else []}
""",
    "later.py": """
import asyncio
from promptflow import tool
from promptflow.exceptions import SystemErrorException, UserErrorException
@tool
async def later(flag: bool, what: object, note: str = "default") -> str:
    await asyncio.sleep(0.001)
    if what == {"say": "user"}:
        raise UserErrorException("your fault")
    if what == {"say": "system"}:
        raise SystemErrorException("our fault")
    return f"{flag} {note}"
""",
    "join.py": "from promptflow.core import tool\n@tool\ndef join(a, b):\n    return [a, b]\n",
    "total.py": "from promptflow.core import tool\n@tool\ndef total(all: list):\n    return len(all)\n",
}


@pytest.fixture(scope="module")
def endpoint(home):
    with scripted_endpoint() as server, home.entered():
        store_connection("phi3-tuned", Endpoint(server.url(), KEY, "openai", timeout=30))
        yield server


@pytest.fixture(scope="module")
def chat(home, endpoint):
    with both_hosts(resolve_flow("chat", home.folder.parent / "chat"), home) as hosts:
        yield hosts["agents"]


def test_a_persons_own_flow_answers_the_same(home):
    folder = home.folder.parent / "own"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(OWN_DAG)
    for name, text in OWN_FILES.items():
        (folder / name).write_text(text)
    whats = [{"a": 1}, {}, {"a": {"b": "c"}}, {"say": "user"}, {"say": "system"}, None, ["x"], "text"]
    bodies = [{"what": what} for what in whats]
    bodies += [{"what": {"a": 1}, "number": number} for number in (0, 13, "7", "x", 2.9)]
    bodies += [{"what": {"a": 1}, "flag": flag} for flag in (True, "TRUE", "no", 1)]
    asked = [Request(json.dumps(body).encode()) for body in bodies]
    asked += [Request(method="GET", path="/swagger.json")]
    with both_hosts(folder, home) as hosts:
        told = {name: [without_times(host.get(each)) for each in asked] for name, host in hosts.items()}
    assert [got.status for got in told["promptflow"]][:5] == [200, 200, 200, 400, 500]
    assert told["agents"] == told["promptflow"]


def test_many_at_once_get_their_own_answers(chat):
    def ask(number):
        turns = [{"inputs": {"question": f"q{number}"}, "outputs": {"answer": f"a{number}"}}]
        body = json.dumps({"question": f"number {number}", "chat_history": turns}).encode()
        got = chat.get(Request(body))
        assert got.status == 200, got.body
        return json.loads(got.body)["answer"].strip()

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(256)))
    assert answers == [f"user: q{n} assistant: a{n} user: number {n}" for n in range(256)]


def test_a_reader_who_leaves_ends_the_answer_behind_the_flow(chat, endpoint, home):
    url, body = f"http://127.0.0.1:{chat.port}/score", {"question": "endless"}
    headers = {"Authorization": f"Bearer {chat.key}", "Accept": "text/event-stream"}
    with requests.post(url, json=body, headers=headers, stream=True, timeout=30) as answer:
        assert next(answer.iter_lines()) == b'data: {"answer": "word0 "}'
    until(lambda: "endless" in endpoint.left)
    assert endpoint.left == ["endless"]
    assert json.loads(chat.get(Request(b'{"question": "hi"}')).body) == {"answer": "user: hi "}
    assert "Traceback" not in (home.folder.parent / "logs" / "agents-chat.log").read_text()


def test_it_answers_nobody_without_the_key(chat):
    refused = chat._replace(key="wrong").get(Request(b'{"question": "hi"}'))
    assert (refused.status, b"key is missing or wrong" in refused.body) == (401, True)
    elsewhere = chat.get(Request(b"{}", headers=(("Host", "evil.example"),)))
    assert elsewhere.status == 403


def test_connections_that_say_nothing_keep_nobody_out(chat):
    with ExitStack() as silent:
        for _ in range(300):
            silent.enter_context(socket.create_connection(("127.0.0.1", chat.port)))
        assert json.loads(chat.get(Request(b'{"question": "hi"}')).body) == {"answer": "user: hi "}


def test_the_head_of_an_answer_comes_with_its_body(chat):
    """Each packet wakes the client, which costs a part of a millisecond."""
    body = b'{"question": "hi"}'
    head = f"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {chat.key}\r\n"
    with socket.create_connection(("127.0.0.1", chat.port), timeout=30) as client:
        client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert client.recv(65536).endswith(b'{"answer":"user: hi "}\n')


def test_a_body_is_bounded_before_its_key_is_looked_at(chat):
    with socket.create_connection(("127.0.0.1", chat.port), timeout=30) as client:
        client.sendall(b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_key_that_stands_twice_is_named(chat):
    refused = chat.get(Request(b'{"question": "a", "question": "b"}'))
    assert (refused.status, b"question: key given twice" in refused.body) == (400, True)


def test_a_body_nested_too_deeply_is_the_clients_mistake(chat):
    refused = chat.get(Request(b"[" * 200_000))
    assert (refused.status, b"nested too deeply" in refused.body) == (400, True)


@pytest.mark.parametrize(
    ("connections", "said"),
    [("not json", "PHI3FLOW_CONNECTIONS is not JSON"), ("{}", "there is no connection 'phi3-tuned'")],
)
def test_a_connection_that_is_missing_is_named_and_no_value_shown(home, connections, said):
    folder = home.folder.parent / "alone"
    if not folder.exists():
        resolve_flow("chat", folder)
    ran = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-P", "-m", "agents.host", folder, "1"],
        env={"PATH": os.environ["PATH"], "PHI3FLOW_FLOW_KEY": "k", "PHI3FLOW_CONNECTIONS": connections},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1 and said in ran.stderr
    assert "Traceback" not in ran.stderr and "not json" not in ran.stderr.replace("not JSON", "")
