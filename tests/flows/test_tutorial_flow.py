"""The flow that speaks as the tutorials' own does: `input_data` in, `answer` out, .7 and 128 tokens."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler

from loopback import JsonAnswers, serving
from ruamel.yaml import YAML

from custom_connections.promptflow_home import QUIET
from phi3flow.core.flow_folder import DAG, resolve_flow

ASK = """
import sys
from promptflow.connections import CustomConnection
from tutorial_node import my_python_tool
connection = CustomConnection(secrets={"key": "k"}, configs={"endpoint": sys.argv[1], "contract": "B"})
print(my_python_tool(input_data="Who founded Microsoft?", connection=connection))
"""


def test_its_inputs_and_outputs_are_the_tutorials(tmp_path):
    dag = YAML(typ="safe").load(resolve_flow("tutorial", tmp_path / "tutorial") / DAG)
    assert dag["inputs"] == {"input_data": {"type": "string", "default": "Who founded Microsoft?"}}
    assert list(dag["outputs"]) == ["answer"]


def test_it_asks_with_the_tutorials_settings(tmp_path):
    bodies = []

    class Founders(JsonAnswers, BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.asked())
            self.answer(200, {"output": "Bill Gates and Paul Allen."})

    folder = resolve_flow("tutorial", tmp_path / "tutorial")
    environment = {**QUIET, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with serving(Founders) as server:
        url = f"http://127.0.0.1:{server.server_port}/score"
        ran = subprocess.run(
            [sys.executable, "-c", ASK, url],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stdout.strip() == "Bill Gates and Paul Allen.", ran.stderr
    (body,) = bodies
    assert body["input_data"]["input_string"] == [{"role": "user", "content": "Who founded Microsoft?"}]
    assert body["input_data"]["parameters"]["temperature"] == 0.7
    assert body["input_data"]["parameters"]["max_new_tokens"] == 128
