"""`phi3flow migrate check`: nothing differs for our flows, and a changed twin's lines are named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from both_hosts import ENVIRONMENT, needs_agents, new_home
from chromium import free_ports
from scripted_endpoint import KEY, scripted_endpoint

from custom_connections.store import store_connection
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint

pytestmark = needs_agents
QUESTIONS = ("Who founded Microsoft?", "Größe?", "cut", "too long")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with stored connections and a test file, and the environment of its commands."""
    tmp_path = tmp_path_factory.mktemp("project")
    home = new_home(tmp_path / ".phi3flow" / "promptflow")
    chats = [[("user", question), ("assistant", f"about {question}")] for question in QUESTIONS]
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats]
    write_jsonl(tmp_path / "test.jsonl", rows)
    write_jsonl(tmp_path / "inputs.jsonl", [{"question": question} for question in QUESTIONS])
    flow, base = free_ports(2)
    ports = {"PHI3FLOW_FLOW_PORT": str(flow), "PHI3FLOW_BASE_FLOW_PORT": str(base)}
    environment = os.environ | home.variables | ports | {"PHI3FLOW_AGENTS_ENVIRONMENT": str(ENVIRONMENT)}
    with scripted_endpoint() as server, home.entered():
        for name in ("phi3-tuned", "phi3-base"):
            store_connection(name, Endpoint(server.url(), KEY, "openai", timeout=20))
        yield tmp_path, environment


def check(project, *options):
    folder, environment = project
    command = [Path(sys.executable).with_name("phi3flow"), "migrate", "check", *options, "--out", "parity"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_nothing_differs_for_our_flows(project):
    ran = check(project, "--data", "test.jsonl", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    flows = json.loads(ran.stdout)["flows"]
    assert {name: (each["lines"], each["differing"]) for name, each in flows.items()} == {
        "chat": (4, []),
        "compare": (4, []),
        "grade": (4, []),
    }
    assert all(each["edge_cases"] > 30 for each in flows.values())
    page = (project[0] / "parity" / "parity.html").read_text()
    assert "Every answer is the same" in page and KEY not in page


def test_a_changed_twin_is_held_and_its_lines_are_named(project):
    for name in ("flow", "twin"):
        resolve_flow("chat", project[0] / name)
    node = project[0] / "twin" / "chat_answer.py"
    node.write_text(node.read_text().replace("yield first", 'yield first.replace("user", "User")'))
    ran = check(project, "--flow", "flow", "--twin", "twin", "--data", "inputs.jsonl")
    assert ran.returncode == 3, ran.stdout + ran.stderr
    named = [line for line in ran.stdout.splitlines() if "line " in line]
    assert named[:2] == ["flow: line 1: differs", "flow: line 2: differs"]
    page = (project[0] / "parity" / "parity.html").read_text()
    assert "answers differ. Do not move yet." in page and "Who founded Microsoft?" in page
