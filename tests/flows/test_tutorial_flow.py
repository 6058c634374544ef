"""The flow that speaks as the tutorials' own does: `input_data` in, `answer` out, .7 and 128 tokens."""

import http.server
import json
import subprocess
import sys
import threading

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

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = json.dumps({"output": "Bill Gates and Paul Allen."}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = resolve_flow("tutorial", tmp_path / "tutorial")
    url = f"http://127.0.0.1:{server.server_port}/score"
    environment = {**QUIET, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", ASK, url],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    server.shutdown()
    server.server_close()
    assert ran.stdout.strip() == "Bill Gates and Paul Allen.", ran.stderr
    (body,) = bodies
    assert body["input_data"]["input_string"] == [{"role": "user", "content": "Who founded Microsoft?"}]
    assert body["input_data"]["parameters"]["temperature"] == 0.7
    assert body["input_data"]["parameters"]["max_new_tokens"] == 128
