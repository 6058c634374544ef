"""Prompt flow's image in the cloud has Python 3.9: every resolved flow is imported and run under a real one.

With stand-ins for Prompt flow's decorator and `requests`; tests/install/test_flows_on_python39.py takes the
real ones.
"""

import subprocess
from pathlib import Path

import pytest
from old_python import python_3_9

from phi3flow.core.flow_folder import SHIPPED, resolve_flow

PYTHON = python_3_9()
STAND_INS = """
import json, sys, types

def module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(members)

class Failed(Exception): pass

class Session:
    trust_env = True
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def post(self, url, **_): raise Failed(url)

names = ("RequestException", "ConnectionError", "Timeout", "ConnectTimeout", "ReadTimeout", "SSLError",
         "ChunkedEncodingError", "InvalidURL", "InvalidSchema", "MissingSchema", "InvalidHeader")
errors = {name: type(name, (Failed,), {}) for name in names}
module("requests.exceptions", **errors)
module("requests", Session=Session, Response=object, exceptions=sys.modules["requests.exceptions"], **errors)
module("requests.adapters", HTTPAdapter=object)
module("urllib3")
module("urllib3.exceptions", ProtocolError=Failed)
module("promptflow")
module("promptflow.core", tool=lambda f: f, log_metric=lambda *_: None)
module("promptflow.connections", CustomConnection=object, OpenAIConnection=object)
module("promptflow.exceptions", PromptflowException=Failed)
"""
RUNS = {
    "chat": """
import chat_node, phi3_contract
history = [{"inputs": {"question": "a"}, "outputs": {"answer": "b"}}]
turns = phi3_contract.join_turns("Who?", history, "Be brief.")
assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
assert phi3_contract.split_turns(turns)
assert phi3_contract._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
endpoint = phi3_contract.Endpoint.from_connection({"endpoint": "http://127.0.0.1:9/score"}, {"key": "k"})
print("ran")
""",
    "compare": """
import compare_ask_node, compare_score_node, compare_summary_node
side = {"text": "Bill Gates"}
scores = compare_score_node.score_sides(side, side, "Gates")
assert 0 < scores["tuned"]["token_f1"] < 1
assert compare_summary_node.summarise_sides([scores])["answered"] == 1.0
print("ran")
""",
    "tutorial": """
import tutorial_node
print("ran")
""",
    "grade": """
import grade_judge, grade_score_node, grade_summary_node
assert grade_judge.read_grade("word 4", "word") == 4.0
scores = grade_score_node.score("Bill Gates", "Gates")
assert 0 < scores["token_f1"] < 1
assert grade_summary_node.summarise([scores], [grade_judge.SILENT])["lines"] == 1.0
print("ran")
""",
}


def test_every_flow_has_a_run_here():
    assert set(RUNS) == set(SHIPPED)


@pytest.mark.skipif(not PYTHON, reason="no Python 3.9 here")
@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_flow_runs_under_python_3_9(name: str, tmp_path: Path) -> None:
    folder = resolve_flow(name, tmp_path / name)
    code = "".join(f"import {path.stem}\n" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")
    script = STAND_INS + code + RUNS[name]
    ran = subprocess.run(
        [PYTHON, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr
