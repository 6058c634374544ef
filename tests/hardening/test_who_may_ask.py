"""5: the flow and the page of `phi3flow up` answer this person's programs and pages, and nobody else."""

import json
import shutil
import socket
import subprocess
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from chromium import chromium, free_ports, opened
from loopback import JsonAnswers, serving

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from phi3flow.app.flow_callers import callers_know, curl_line, header_file
from phi3flow.app.services import chat_page, served_flow, with_flow_key
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED

DAG = """
inputs:
  question: {type: string}
  chat_history: {type: list, default: []}  # a request need not have it
outputs:
  answer: {type: string, reference: "${say.output}"}
nodes:
- name: say
  type: python
  source: {type: code, path: say.py}
  inputs: {question: "${inputs.question}"}
"""
NODE = """
from pathlib import Path
from promptflow.core import tool


@tool
def say(question: str) -> str:
    with Path("asked.txt").open("a") as file:
        file.write(question + "\\n")
    return "you said " + question
"""
# What a page can send without asking first whether it may.
ATTACK = """async url => {
    const body = JSON.stringify({question: 'from the page'});
    const tries = [{}, {mode: 'no-cors'}, {headers: {'Content-Type': 'application/json'}}];
    const read = [];
    for (const how of tries) {
        try { read.push(await (await fetch(url, {method: 'POST', body, ...how})).text()); }
        catch (error) { read.push(''); }
    }
    return read.join('');
}"""


class Elsewhere(JsonAnswers, BaseHTTPRequestHandler):
    def do_GET(self):
        self.send("text/html", b"<title>elsewhere</title>")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder, new_encryption_key()).items():
            patch.setenv(name, value)
        prepare_home(folder)
        yield folder


@pytest.fixture(scope="module")
def settings(home):
    flow_port, ui_port = free_ports(2)
    return with_flow_key(Settings(flow_port=flow_port, ui_port=ui_port, promptflow_home=home))


@pytest.fixture(scope="module")
def flow(home, settings):
    """A served flow that notes what it was asked, and the page before it."""
    folder, run = home.parent / "flow", home.parent / "run"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(DAG)
    (folder / "say.py").write_text(NODE)
    services = (
        served_flow(folder, TUNED, settings, run / "flow.log"),
        chat_page(run, settings, run / "page.log"),
    )
    with Stack(*services):
        yield folder


def asked_of(flow):
    file = flow / "asked.txt"
    return file.read_text().split("\n")[:-1] if file.exists() else []


def post(settings, **headers):
    url = f"http://127.0.0.1:{settings.flow_port}/score"
    return requests.post(url, data=json.dumps({"question": "hi"}), headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 401, "key is missing or wrong"),
        ({"Authorization": "Bearer wrong"}, 401, "key is missing or wrong"),
        ({"Authorization": "Bearer \u00e9".encode()}, 401, "key is missing or wrong"),
        ({"Host": "evil.example"}, 403, "Host of a request must be 127.0.0.1"),
        ({"Host": "127.0.0.1.evil.example"}, 403, "Host of a request must be 127.0.0.1"),
        ({"Host": "[::1"}, 403, "Host of a request must be 127.0.0.1"),
        ({"Host": "evil.example@127.0.0.1"}, 403, "Host of a request must be 127.0.0.1"),
        ({"Origin": "http://evil.example"}, 403, "page of another origin"),
        ({"Origin": "http://127.0.0.1:1"}, 403, "page of another origin"),
        ({"Origin": "null"}, 403, "page of another origin"),
        ({"Host": "127.0.0.1:1", "Origin": "ftp://127.0.0.1:1"}, 403, "page of another origin"),
    ],
)
def test_5_others_are_refused_in_a_sentence_and_the_flow_does_not_run(flow, settings, headers, status, words):
    before = asked_of(flow)
    with_key = {"Authorization": f"Bearer {settings.flow_key}"} if status == 403 else {}
    answer = post(settings, **with_key, **headers)
    assert answer.status_code == status and words in answer.json()["error"]["message"]
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert asked_of(flow) == before
    answered = post(settings, Authorization=f"Bearer {settings.flow_key}")
    assert answered.json() == {"answer": "you said hi"}
    assert "Access-Control-Allow-Origin" not in answered.headers


def test_5_nothing_else_that_prompt_flow_serves_is_open(flow, settings):
    url = f"http://127.0.0.1:{settings.flow_port}"
    told = {
        path: requests.get(url + path, timeout=30).status_code for path in ("/", "/swagger.json", "/version")
    }
    assert told == {"/": 401, "/swagger.json": 401, "/version": 401}
    assert requests.post(f"{url}/feedback", timeout=30).status_code == 401
    assert requests.get(f"{url}/health", headers={"Host": "evil.example"}, timeout=30).status_code == 403
    assert "Access-Control-Allow-Origin" not in requests.get(f"{url}/health", timeout=30).headers


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_5_the_curl_line_asks_and_does_not_show_the_key(flow, settings):
    line, header = curl_line(settings.flow_port, settings), header_file(settings.flow_port, settings)
    assert settings.flow_key not in line
    with callers_know(settings.flow_key, [TUNED], settings):
        ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {"answer": "you said Who founded Microsoft?"}
    assert not header.exists()


@pytest.mark.browser
def test_5_a_page_of_another_origin_gets_nothing(flow, settings):
    before = asked_of(flow)
    served = f"http://127.0.0.1:{settings.flow_port}"
    with serving(Elsewhere) as server, chromium() as browser:
        elsewhere = f"http://127.0.0.1:{server.server_port}"
        with opened(browser, elsewhere) as page:
            read = [
                page.evaluate(ATTACK, f"{served}/{path}") for path in ("score", "feedback", "swagger.json")
            ]
    assert read == ["", "", ""]
    assert asked_of(flow) == before


@pytest.mark.browser
def test_5_the_page_itself_chats(flow, settings):
    with chromium() as browser, opened(browser, f"http://127.0.0.1:{settings.ui_port}") as page:
        page.get_by_placeholder("Ask").fill("who?")
        page.keyboard.press("Enter")
        page.locator(".phi3flow-answer", has_text="you said who?").wait_for(timeout=30_000)
    assert asked_of(flow)[-1] == "who?"
    database = flow.parent / "run" / "chat.sqlite"
    assert {file.stat().st_mode & 0o777 for file in database.parent.glob("chat.sqlite*")} == {0o600}


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/_stcore/host-config", "/media/x.png"])
def test_5_the_page_refuses_names_that_lead_here(flow, settings, path):
    url = f"http://127.0.0.1:{settings.ui_port}{path}"
    refused = requests.get(url, headers={"Host": "evil.example"}, timeout=30)
    assert (refused.status_code, refused.text) == (
        403,
        "the Host of a request must be 127.0.0.1 or localhost",
    )


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("evil.example", "http://evil.example", 403),
        ("127.0.0.1:{port}", "http://evil.example", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:1", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 101),
        ("localhost:{port}", "http://localhost:{port}", 101),
    ],
)
def test_5_so_does_its_web_socket(flow, settings, host, origin, status):
    """A handshake by hand: no client library sends these headers."""
    lines = [
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin}",
        *("Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    with socket.create_connection(("127.0.0.1", settings.ui_port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).format(port=settings.ui_port).encode())
        assert connection.recv(100).split()[1] == str(status).encode()
