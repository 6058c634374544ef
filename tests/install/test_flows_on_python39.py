"""Each resolved flow with its own requirements under Python 3.9, by Prompt flow's own command.

Prompt flow's image in the cloud has that Python. tests/flows/test_python39.py runs the same flows there at
every push, with stand-ins for the packages.
"""

import json
import os
import subprocess
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from environments import INSTALL_SECONDS, SECONDS, clean_environment
from loopback import JsonAnswers, serving
from old_python import python_3_9

from custom_connections.promptflow_home import QUIET, prepare_home
from phi3flow.core.flow_folder import SHIPPED, resolve_flow

PYTHON = python_3_9()
CONNECTIONS = ("phi3-base", "phi3-tuned")
ENCRYPTION_KEY = Fernet.generate_key().decode()
ANSWER = "Bill Gates and Paul Allen."
KEYRING = """
import os
from keyring.backend import KeyringBackend
class Keyring(KeyringBackend):
    priority = 1
    def get_password(self, service, username): return os.environ["PF_ENCRYPTION_KEY"]
    def set_password(self, *_): raise NotImplementedError
    def delete_password(self, *_): raise NotImplementedError
"""
SCORES = {"exact_match": 1.0, "token_f1": 1.0, "answer_chars": float(len(ANSWER))}
FOUND = {
    "chat": {"answer": ANSWER},
    "tutorial": {"answer": ANSWER},
    "compare": {"scores": {"base": SCORES, "tuned": SCORES}},
    "grade": SCORES,
}

pytestmark = [pytest.mark.install, pytest.mark.skipif(not PYTHON, reason="no Python 3.9 here")]


class Founders(JsonAnswers, BaseHTTPRequestHandler):
    def do_POST(self):
        self.asked()
        self.answer(200, {"output": ANSWER})


class Old:
    """A Python 3.9 with what one requirements.txt names, and a Prompt flow home of its own."""

    def __init__(self, place: Path, requirements: str) -> None:
        self._bin, self._place = place / "environment" / "bin", place
        subprocess.run([PYTHON, "-m", "venv", place / "environment"], check=True)
        (place / "requirements.txt").write_text(requirements)
        self.run("pip", "install", "--quiet", "--requirement", "requirements.txt", timeout=INSTALL_SECONDS)
        (place / "test_keyring.py").write_text(KEYRING)
        prepare_home(place / "home")

    def run(self, *words: object, timeout: int = SECONDS) -> str:
        chosen = {"PF_HOME_DIRECTORY": str(self._place / "home"), "HOME": str(self._place)}
        chosen |= {"PYTHONPATH": str(self._place), "PYTHON_KEYRING_BACKEND": "test_keyring.Keyring"}
        chosen |= {"PF_ENCRYPTION_KEY": ENCRYPTION_KEY, "NO_PROXY": "127.0.0.1"}
        chosen |= {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"}
        ran = subprocess.run(
            list(map(str, words)),
            cwd=self._place,
            env=clean_environment() | QUIET | chosen,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def connect(self, url: str) -> None:
        for name in CONNECTIONS:
            connection = {"name": name, "type": "custom", "configs": {"endpoint": url, "contract": "B"}}
            (self._place / f"{name}.yaml").write_text(json.dumps({**connection, "secrets": {"key": "k"}}))
            self.run("pf", "connection", "create", "--file", f"{name}.yaml")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Made once for each list of requirements."""

    @cache
    def with_requirements(requirements: str) -> Old:
        return Old(tmp_path_factory.mktemp("python39"), requirements)

    return with_requirements


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_flow_runs_with_the_real_packages_under_python_3_9(name, old, tmp_path):
    folder = resolve_flow(name, tmp_path / name)
    environment = old((folder / "requirements.txt").read_text())
    assert environment.run("python", "--version").startswith("Python 3.9.")
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    inputs = [f"{key}={value}" for key, value in sample.items() if value]
    with serving(Founders) as server:
        environment.connect(f"http://127.0.0.1:{server.server_port}/score")
        environment.run("pf", "flow", "test", "--flow", folder, "--inputs", *inputs)
    output = json.loads((folder / ".promptflow" / "flow.output.json").read_text())
    assert FOUND[name].items() <= output.items()
