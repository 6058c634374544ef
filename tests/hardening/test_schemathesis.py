"""Show 3: schemathesis asks the endpoint and a served flow, as their documents say: no default check fails.

It has an environment of its own, which `make schemathesis` makes.
"""

import subprocess
from pathlib import Path

import pytest
from chromium import free_ports
from instant_engine import instant_endpoint
from tiny import KEY, new_tokenizer

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from custom_connections.store import store_connection
from phi3flow.app.services import served_flow, with_flow_key
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from phi3flow.phi3_contract import Endpoint

SCHEMATHESIS = Path(__file__).parents[2] / ".venv-schemathesis" / "bin" / "st"
CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 100  # of each route

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="make schemathesis"),
]


def ask_as_it_says(document, key, folder):
    """Every default check of schemathesis; the key goes with each request."""
    ran = subprocess.run(
        [
            *(SCHEMATHESIS, f"--config-file={CONFIG}", "run", document, "--no-color"),
            *("--header", f"Authorization: Bearer {key}", f"--max-examples={EXAMPLES}"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]


def test_show_3_the_endpoint_has_no_failure(tmp_path):
    with instant_endpoint(new_tokenizer()) as url:
        ask_as_it_says(f"{url}/openapi.json", KEY, tmp_path)


def test_show_3_the_flows_host_has_no_failure(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name, value in environment(home, new_encryption_key()).items():
        monkeypatch.setenv(name, value)
    prepare_home(home)
    settings = with_flow_key(Settings(flow_port=free_ports(1)[0], promptflow_home=home))
    folder = resolve_flow("chat", tmp_path / "chat")
    with instant_endpoint(new_tokenizer()) as url:
        store_connection(TUNED.connection, Endpoint(f"{url}/v1/chat/completions", KEY, "openai"))
        with Stack(served_flow(folder, TUNED, settings, tmp_path / "flow.log")):
            document = f"http://127.0.0.1:{settings.flow_port}/swagger.json"
            ask_as_it_says(document, settings.flow_key, tmp_path)
