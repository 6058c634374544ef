"""What people get wrong with flows in Foundry, what breaks on the way, and what each is told."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import azure_emulator
import pytest
import requests
from azure_emulator.arm.registrations import register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator, Options
from azure_emulator.front.faults import Fault
from emulated import child_environment, client_of
from foundry_cloud import foundry_process, write_chats
from sums_server import handler_of

from custom_connections.promptflow_home import environment, prepare_home
from phi3flow.app.cli import main
from phi3flow.core.files import read_json

ML = "Microsoft.MachineLearningServices/workspaces"
EMULATOR = Path(azure_emulator.__file__).parent
KEY = "planted-key-77aa10"
QUESTION = "What is 20 plus 22?"


@pytest.fixture
def project(client: Emulator, names, capsys) -> str:
    """The id of a project with both connections, whatever was done to them before."""
    for name in ("phi3-base", "phi3-tuned"):
        client.cloud.store.delete(f"{names.id(ML, names.project)}/connections/{name}")
    assert main(["foundry", "create"]) == 0
    assert main(["foundry", "connect"]) == 0
    capsys.readouterr()
    return str(names.id(ML, names.project))


@pytest.fixture
def faults(client: Emulator) -> Iterator[Any]:
    yield lambda *wanted: client.cloud.faults.set([Fault.parse(fault) for fault in wanted])
    client.cloud.faults.set([])


@pytest.fixture
def endpoint(work: Path) -> Iterator[str]:
    """One that Azure knows nothing of, such as a serverless one of the catalog."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of("tuned", work / "none", KEY))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/score"
    server.shutdown()
    server.server_close()


def foundry(*words: str) -> int:
    return main(["foundry", *words])


def put_by_hand(resource_id: str, keys: dict[str, str]) -> None:
    """As the portal does: every entry is a key, and there is no metadata."""
    properties = {"authType": "CustomKeys", "category": "CustomKeys", "target": "_", "metadata": {}}
    answer = requests.put(
        f"https://management.azure.com{resource_id}?api-version=2024-10-01",
        json={"properties": {**properties, "credentials": {"keys": keys}}},
        headers={"Authorization": f"Bearer {tokens.mint('https://management.azure.com')}"},
        timeout=10,
    )
    answer.raise_for_status()


def test_a_flow_file_of_another_name_is_named_with_its_right_one(client, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "flow.dag.yml").write_text("nodes: []\n")
    assert foundry("upload", str(tmp_path / "mine")) == 2
    told = capsys.readouterr().err
    assert "flow.dag.yml: the file of a flow must be called flow.dag.yaml" in told
    assert "hint: mv " in told


def test_a_missing_include_is_named_before_anything_is_uploaded(client, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "flow.dag.yaml").write_text("nodes: []\nadditional_includes:\n- ../none.py\n")
    assert foundry("upload", str(tmp_path / "mine")) == 2
    assert "additional_includes: ../none.py does not exist" in capsys.readouterr().err


def test_an_unknown_flow_names_the_nearest(client, capsys):
    assert foundry("upload", "chatt") == 2
    assert "did you mean 'chat'" in capsys.readouterr().err


def test_one_endpoint_is_one_connection(client, capsys):
    assert foundry("connect", "--endpoint", "https://any.invalid/score") == 2
    assert "--endpoint belongs to one NAME" in capsys.readouterr().err


def test_a_missing_role_on_secrets_is_named(project, faults, capsys):
    faults({"kind": "error", "method": "POST", "route": "*/listSecrets", "status": 403, "times": 0})
    assert foundry("upload", "chat") == 1
    told = capsys.readouterr().err
    assert "lacks the role 'Azure Machine Learning Workspace Connection Secrets Reader'" in told
    assert "az role assignment create" in told


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"endpoint": "https://any.invalid/score"}, "has no key"),
        ({"key": KEY}, "has no endpoint"),
        ({"endpoint": "any", "key": KEY}, "cannot be used: the endpoint is not an http(s) URL"),
    ],
)
def test_a_connection_with_wrong_keys_is_refused_before_an_upload(project, keys, told, capsys):
    put_by_hand(f"{project}/connections/phi3-tuned", keys)
    assert foundry("upload", "chat") == 1
    shown = capsys.readouterr().err
    assert f"connection phi3-tuned in phi3flow-project {told}" in shown
    assert KEY not in shown


def test_a_connection_made_by_hand_is_read_and_never_changed(project, endpoint, capsys):
    from deploy.foundry.connections import as_flows_read_it
    from deploy.foundry.target import target_of
    from phi3flow.core.settings import Settings

    put_by_hand(f"{project}/connections/phi3-tuned", {"endpoint": endpoint, "key": KEY})
    found = as_flows_read_it(target_of(Settings.load(), workspace=False).cloud, "phi3-tuned")
    assert (found.url, found.contract, found.key) == (endpoint, "B", KEY)
    assert foundry("connect", "phi3-tuned") == 1
    assert "is not phi3flow's to change" in capsys.readouterr().err


def test_an_endpoint_that_refuses_the_key_is_found_out_by_connect(project, endpoint, monkeypatch, capsys):
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", "wrong")
    assert foundry("connect", "phi3-other", "--endpoint", endpoint) == 1
    assert "connection phi3-other is stored, but the endpoint refused the key" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("contract", ["A", "B", "openai"])
def test_another_contract_needs_another_connection_alone(project, client, endpoint, contract, monkeypatch):
    """A and B are what managed endpoints of the catalog speak, openai its serverless ones."""
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", KEY)
    assert foundry("connect", "phi3-tuned", "--endpoint", endpoint, "--contract", contract) == 0
    assert foundry("upload", "chat") == 0
    told = foundry_process(client, "chat", QUESTION, "--json")
    assert told.json["answer"].strip() == "It is 42.", told.err
    assert KEY not in told.err


@pytest.mark.slow
def test_an_upload_that_was_killed_is_made_again(project, client, work, faults, capsys):
    archive_all(client)
    route = {"method": "PUT", "route": "*/chat_node.py"}
    faults({"kind": "signal", "signal": "SIGKILL", "when": "before", **route})
    command = [sys.executable, "-m", "phi3flow", "foundry", "upload", "chat"]
    environment = child_environment(client)
    killed = subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    faults()
    assert foundry("upload", "chat", "--json") == 0
    (action,) = json.loads(capsys.readouterr().out)["actions"]
    assert action["do"] == "create"
    told = foundry_process(client, "chat", QUESTION, "--json")
    assert told.json["answer"].strip() == "It is 42.", told.err


def archive_all(emulator: Emulator) -> None:
    for key in emulator.cloud.store.keys("flows"):
        flow = emulator.cloud.store.read("flows", key) or {}
        emulator.cloud.store.write("flows", key, {**flow, "isArchived": True})


def test_a_changed_flow_takes_the_place_of_the_earlier_one(project, client, tmp_path, capsys):
    from phi3flow.core.flow_folder import resolve_flow

    folder = resolve_flow("chat", tmp_path / "own")
    assert foundry("upload", str(folder), "--json") == 0
    assert json.loads(capsys.readouterr().out)["actions"][0]["do"] == "create"
    (folder / "chat_node.py").write_text((folder / "chat_node.py").read_text() + "# changed\n")
    assert foundry("upload", str(folder), "--json") == 0
    (action,) = json.loads(capsys.readouterr().out)["actions"]
    assert (action["do"], action["why"]) == ("update", "its content changed")
    assert foundry("list", "--json") == 0
    shown = [one["name"] for one in json.loads(capsys.readouterr().out)["found"]]
    assert shown.count("phi3flow-own") == 1


@pytest.mark.slow
def test_a_run_that_fails_as_a_whole_says_why_and_the_next_is_another(project, client, work):
    chats = write_chats(work / "whole.jsonl")
    chats.write_text("".join(chats.read_text().splitlines(keepends=True)[:2]))
    assert foundry("upload", "compare") == 0
    asked = ["run", "--data", str(chats), "--out", "runs/whole"]
    share = next((client.folder / "shares").rglob("compare-*/answer_metrics.py"))
    kept = share.read_text()
    for copy in (client.folder / "shares").rglob("compare-*/answer_metrics.py"):
        copy.unlink()
    told = foundry_process(client, *asked)
    assert told.exit_code == 1
    assert "ended as failed: " in told.err
    assert "answer_metrics" in told.err
    for folder in {path.parent for path in (client.folder / "shares").rglob("compare_answer.py")}:
        (folder / "answer_metrics.py").write_text(kept)
    assert foundry_process(client, *asked).exit_code == 0
    assert len(read_json(work / "runs" / "whole" / "cloud.json")["runs"]) == 2


def test_what_was_uploaded_answers_alone_in_an_empty_folder(project, client, tmp_path):
    """Nothing of this checkout can be imported there: only what the flow's requirements bring."""
    assert foundry("upload", "chat") == 0
    there = sorted((client.folder / "shares").rglob("chat-*"), key=lambda path: path.stat().st_mtime)[-1]
    shutil.copytree(there, tmp_path / "alone")
    prepare_home(tmp_path / "home")
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(EMULATOR.parent), project, str(tmp_path / "alone")],
        cwd=tmp_path / "alone",
        env=child_environment(client) | environment(tmp_path / "home", ""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "It is 42." in ran.stdout, ran.stderr


ALONE = f"""
import sys
sys.path.insert(0, sys.argv[1])
from azure_emulator.flows.flow_worker import NotInTheCloud
sys.path.pop(0)
sys.meta_path.insert(0, NotInTheCloud())
from promptflow.client import PFClient
client = PFClient(config={{"connection.provider": "azureml:/" + sys.argv[2]}})
print("".join(client.test(flow=sys.argv[3], inputs={{"question": "{QUESTION}"}})["answer"]))
"""


@pytest.mark.slow
def test_a_workspace_is_a_target_as_well(client, names, capsys):
    there = "--workspace"
    assert foundry("connect", there) == 0
    assert foundry("upload", "chat", there) == 0
    told = foundry_process(client, "chat", QUESTION, there, "--json")
    assert told.json["answer"].strip() == "It is 42.", told.err
    capsys.readouterr()
    assert client.cloud.store.get(f"{names.workspace_id}/connections/phi3-tuned")
    assert foundry("delete", there, "--json") == 0
    assert {one["kind"] for one in json.loads(capsys.readouterr().out)["removals"]} == {"flow", "connection"}
    assert client.cloud.store.get(names.workspace_id)


def test_teardown_takes_the_project_before_its_hub(isolated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Emulator(Options(tmp_path / "cloud")) as azure, client_of(azure):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        assert foundry("create") == 0
        capsys.readouterr()
        assert main(["azure", "teardown", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["left"] == []
        assert [entry for entry in azure.cloud.log.entries if entry.unknown] == []


def test_what_delete_took_away_can_be_made_again_at_once(isolated, tmp_path, monkeypatch, capsys):
    """Azure keeps a deleted workspace and its name for 14 days, unless it is told to purge."""
    monkeypatch.chdir(tmp_path)
    with Emulator(Options(tmp_path / "cloud")) as azure, client_of(azure):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        for step in ("create", "delete", "create"):
            assert foundry(step) == 0, capsys.readouterr().err


def test_a_hub_is_connected_to_azure_ai_services_where_that_is_asked_for(client, names, capsys):
    """The portal's choice "Connect Azure AI Services", when it makes a hub."""
    assert foundry("create", "--ai-services", "missing") == 2
    assert "there is no Azure AI Services account" in capsys.readouterr().err
    account = names.id("Microsoft.CognitiveServices/accounts", "services")
    register(client.cloud, "Microsoft.CognitiveServices")
    answer = requests.put(
        f"https://management.azure.com{account}?api-version=2024-10-01",
        json={"location": "eastus2", "kind": "AIServices", "sku": {"name": "S0"}},
        headers={"Authorization": f"Bearer {tokens.mint('https://management.azure.com')}"},
        timeout=10,
    )
    answer.raise_for_status()
    assert foundry("create", "--ai-services", "services") == 0
    stored = client.cloud.store.require(f"{names.hub_id}/connections/ai-services")["properties"]
    assert (stored["category"], stored["authType"], stored["isSharedToAll"]) == ("AIServices", "AAD", True)
    assert stored["target"] == "https://services.cognitiveservices.azure.com/"
    capsys.readouterr()
    assert foundry("create", "--ai-services", "services", "--json") == 0
    actions = json.loads(capsys.readouterr().out)["actions"]
    assert [one["do"] for one in actions if one["kind"] == "connection"] == ["keep"]


def test_help_of_a_step_imports_no_sdk():
    code = (
        "import sys; from phi3flow.app.cli import main\n"
        "try: main(['foundry', 'run', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('azure', 'promptflow', 'numpy')\n"
        "print([m for m in sys.modules if m.split('.')[0] in heavy], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
