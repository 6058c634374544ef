"""The Prompt flow home, its environment, the connection templates and the store behind them."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from headless import KEY, PHI3FLOW, bare, phi3flow
from ruamel.yaml import YAML

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from custom_connections.store import TEMPLATES, configs_of, template
from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import FLOWS, resolve_flow
from phi3flow.phi3_contract import Endpoint


def exported(text):
    return dict(line.removeprefix("export ").split("=", 1) for line in text.splitlines())


def test_a_prepared_home_is_quiet_and_keeps_what_the_user_changed(tmp_path):
    prepare_home(tmp_path)
    config = YAML(typ="safe").load(tmp_path / "pf.yaml")
    assert config == {"telemetry": {"enabled": False}, "trace": {"destination": "none"}}
    (tmp_path / "pf.yaml").write_text("telemetry: {enabled: true}\n")
    prepare_home(tmp_path)
    assert (tmp_path / "pf.yaml").read_text() == "telemetry: {enabled: true}\n"


def test_without_an_encryption_key_the_machines_keyring_is_left_alone(tmp_path):
    assert not {"PYTHON_KEYRING_BACKEND", "PF_ENCRYPTION_KEY"} & set(environment(tmp_path, ""))
    assert environment(tmp_path, "k")["PF_ENCRYPTION_KEY"] == "k"


def test_env_makes_keys_once_and_keeps_the_ones_that_are_set(tmp_path):
    first = exported(phi3flow(tmp_path, "env").stdout)
    Fernet(first["PF_ENCRYPTION_KEY"])
    assert len(first["PHI3FLOW_ENDPOINT_KEY"]) >= 43
    assert Path(first["PF_HOME_DIRECTORY"]) == tmp_path / ".phi3flow/promptflow"
    kept = {name: first[name] for name in ("PF_ENCRYPTION_KEY", "PHI3FLOW_ENDPOINT_KEY")}
    assert exported(phi3flow(tmp_path, "env", **kept).stdout) == first


def test_env_shows_secrets_to_an_eval_only(tmp_path):
    ours, theirs = pty.openpty()
    shown = subprocess.run(
        [PHI3FLOW, "env"],
        cwd=tmp_path,
        env=bare(tmp_path),
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert shown.returncode == 2
    assert b'hint: eval "$(phi3flow env)"' in shown.stderr
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    names = json.loads(phi3flow(tmp_path, "env", "--json", PHI3FLOW_ENDPOINT_KEY=KEY).stdout)
    assert list(names) == ["names"] and KEY not in str(names)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_hold_no_secret_and_are_filled_in_by_us(name):
    endpoint = template(name, KEY)
    assert (endpoint.key, endpoint.contract) == (KEY, "B")
    assert endpoint.url.startswith("http://127.0.0.1:500")
    assert KEY not in str(configs_of(endpoint)) + repr(endpoint)


def test_only_the_packaged_connections_have_a_default_endpoint():
    with pytest.raises(BadInput, match="needs an endpoint"):
        template("mine", KEY)


def test_configs_carry_everything_but_the_key():
    endpoint = Endpoint("https://host/score", KEY, "openai", model="m", deployment="blue", timeout=2.5)
    assert Endpoint.from_connection(configs_of(endpoint), {"key": KEY}) == endpoint


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "no key for 'phi3-tuned'"),
        ({"PHI3FLOW_ENDPOINT_KEY": KEY}, "no keyring"),
        ({"PHI3FLOW_ENDPOINT_KEY": KEY, "PF_ENCRYPTION_KEY": "short"}, "not a Fernet key"),
    ],
)
def test_connect_says_what_is_missing_and_how_to_get_it(tmp_path, variables, said):
    refused = phi3flow(tmp_path, "connect", "phi3-tuned", **variables)
    assert refused.returncode in {1, 2}
    assert said in refused.stderr and 'eval "$(phi3flow env)"' in refused.stderr
    assert KEY not in refused.stderr + refused.stdout


LOAD = """
import json, sys
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from custom_connections.store import load_endpoint
from phi3flow.core.errors import Phi3flowError

for name in sys.argv[1:]:
    try:
        endpoint = load_endpoint(name)
        print(json.dumps([endpoint.url, endpoint.contract, endpoint.deployment, endpoint.key]))
    except Phi3flowError as error:
        print(json.dumps([str(error), error.hint]))
"""


def load(folder, encryption_key, *names):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        cwd=folder,
        env=bare(folder, PF_ENCRYPTION_KEY=encryption_key),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_stored_connection_opens_under_its_own_encryption_key_only(tmp_path):
    key = new_encryption_key()
    stored = phi3flow(
        tmp_path,
        *("connect", "azure", "--endpoint", "https://host/score", "--contract", "A", "--deployment", "blue"),
        PF_ENCRYPTION_KEY=key,
        PHI3FLOW_ENDPOINT_KEY=KEY,
    )
    assert stored.stdout == "stored azure: https://host/score, contract A\n"
    assert load(tmp_path, key, "azure") == [["https://host/score", "A", "blue", KEY]]
    guessed = phi3flow(
        tmp_path,
        *("connect", "mine", "--endpoint", "https://host/v1/chat/completions"),
        PF_ENCRYPTION_KEY=key,
        PHI3FLOW_ENDPOINT_KEY=KEY,
    )
    assert guessed.stdout == "stored mine: https://host/v1/chat/completions, contract openai\n"
    (wrong, again), (missing, hint) = load(tmp_path, new_encryption_key(), "azure", "nobody")
    assert wrong == "connection 'azure' was stored under another encryption key"
    assert "phi3flow connect azure --endpoint URL" in again
    assert (missing, hint) == ("there is no connection 'nobody'", "phi3flow connect nobody --endpoint URL")
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_resolved_flow_carries_its_includes_and_may_answer_from_another_connection(tmp_path):
    folder = resolve_flow("chat", tmp_path / "base", connection="phi3-base")
    flow = YAML(typ="safe").load(folder / "flow.dag.yaml")
    assert "additional_includes" not in flow
    assert (folder / "phi3_contract.py").exists()
    assert [node["inputs"]["connection"] for node in flow["nodes"]] == ["phi3-base"]
    with pytest.raises(BadInput, match="unknown flow 'chta'"):
        resolve_flow("chta", tmp_path / "x")


def test_no_two_flows_use_one_name_for_different_files(tmp_path):
    """Prompt flow puts every flow folder it meets on sys.path for good: one name must mean one content."""
    contents = {}
    for name in FLOWS:
        for file in resolve_flow(name, tmp_path / name).glob("*.py"):
            assert contents.setdefault(file.name, file.read_bytes()) == file.read_bytes()
    assert len(contents) >= 9
