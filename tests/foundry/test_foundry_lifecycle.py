"""Flows in an emulated Foundry project, from nothing to a report and back to nothing, by the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from azure_emulator.emulator import Emulator
from azure_emulator.endpoints import online_endpoints
from emulated import child_environment
from foundry_cloud import CHATS, foundry_process, write_chats

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.cli import main
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl

pytestmark = pytest.mark.slow  # minutes of a laptop's time: each run in the cloud imports Prompt flow anew
ML = "Microsoft.MachineLearningServices/workspaces"


@pytest.fixture(scope="module")
def chats(work: Path) -> Path:
    return write_chats(work / "test.jsonl")


def foundry(*words: str) -> int:
    return main(["foundry", *words])


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def uploads(emulator: Emulator) -> int:
    return len(
        [entry for entry in emulator.cloud.log.entries if (entry.plane, entry.method) == ("file", "PUT")]
    )


def test_1_what_is_missing_is_named_with_the_command_that_makes_it(client, capsys):
    assert foundry("connect") == 1
    told = capsys.readouterr().err
    assert "there is no Foundry project phi3flow-project" in told
    assert "hint: phi3flow foundry create" in told


def test_2_hub_and_project_are_made_once_on_the_workspaces_parts(client, names, capsys):
    assert foundry("create", "--plan", "--json") == 0
    planned = shown(capsys)["actions"]
    assert [(one["do"], one["kind"]) for one in planned] == [
        ("keep", "resource group"),
        ("create", "hub"),
        ("create", "project"),
    ]
    assert foundry("create") == 0
    project = client.cloud.store.require(names.id(ML, names.project))
    assert project["kind"] == "Project"
    assert project["properties"]["hubResourceId"].endswith("/phi3flow-hub")
    capsys.readouterr()
    assert foundry("create", "--json") == 0
    assert {one["do"] for one in shown(capsys)["actions"]} == {"keep"}


def test_3_flows_are_not_uploaded_before_their_connections_are_there(client, capsys):
    assert foundry("upload", "chat") == 1
    told = capsys.readouterr().err
    assert "connection phi3-tuned in phi3flow-project does not exist" in told
    assert "phi3flow foundry connect phi3-tuned" in told
    assert uploads(client) == 0


def test_4_connections_are_written_once_and_read_back(client, names, capsys):
    assert foundry("connect", "--json") == 0
    assert {one["do"] for one in shown(capsys)["actions"]} == {"create"}
    stored = client.cloud.store.require(f"{names.id(ML, names.project)}/connections/phi3-tuned")
    metadata = stored["properties"]["metadata"]
    assert metadata["azureml.flow.connection_type"] == "Custom"
    assert metadata["azureml.flow.module"] == "promptflow.connections"
    assert metadata["endpoint"].endswith("/score")
    assert foundry("connect", "--json") == 0
    assert {one["do"] for one in shown(capsys)["actions"]} == {"keep"}


def test_5_three_flows_go_up_once_and_exactly_as_they_are_here(client, names, capsys, tmp_path):
    from phi3flow.core.flow_folder import FLOWS, resolve_flow

    assert foundry("upload", "--json") == 0
    told = shown(capsys)
    assert {(one["name"], one["do"]) for one in told["actions"]} == {(name, "create") for name in FLOWS}
    assert all(url.startswith("https://ml.azure.com/") for url in told["urls"].values())
    for name in FLOWS:
        (there,) = (client.folder / "shares").rglob(f"{name}-*")
        assert files(there) == files(resolve_flow(name, tmp_path / name))
    before = uploads(client)
    assert foundry("upload", "--json") == 0
    again = shown(capsys)
    assert {one["do"] for one in again["actions"]} == {"keep"}
    assert again["urls"] == told["urls"]
    assert uploads(client) == before


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_6_the_uploaded_chat_flow_answers(client):
    told = foundry_process(client, "chat", "What is 20 plus 22?", "--json")
    assert told.json["answer"].strip() == "It is 42.", told.err


def test_7_a_rotated_key_is_noticed_and_connect_repairs_it(client, names, capsys):
    endpoint = next(
        item["id"]
        for item in client.cloud.store.below("", kind=online_endpoints.KIND)
        if item["name"] == names.endpoint("phi3-tuned")
    )
    client.cloud.secret(f"endpoint/{endpoint.lower()}/primaryKey", renew=True)
    told = foundry_process(client, "chat", "What is 20 plus 22?")
    assert told.exit_code == 1
    assert "the endpoint refused the key" in told.err
    assert "phi3flow foundry connect" in told.err
    assert foundry("connect", "--json") == 0
    (tuned,) = [one for one in shown(capsys)["actions"] if one["name"] == "phi3-tuned"]
    assert (tuned["do"], tuned["why"]) == ("update", "another key")
    told = foundry_process(client, "chat", "What is 20 plus 22?", "--json")
    assert told.json["answer"].strip() == "It is 42.", told.err


def test_8_failed_lines_are_counted_listed_and_asked_again(client, work, chats):
    (work / "faults").touch()
    asked = ["run", "--data", str(chats), "--out", "runs/some", "--json"]
    told = foundry_process(client, *asked)
    assert told.exit_code == 5, told.err
    assert (told.json["expected"], len(told.json["runs"])) == (CHATS, 1)
    failed = [number for number, row in enumerate(read_jsonl(chats), 1) if ends_in_0(row)]
    assert told.json["failed"] == failed
    assert 0 < len(failed) < CHATS
    (work / "faults").unlink()
    told = foundry_process(client, *asked)
    assert (told.exit_code, told.json["failed"], len(told.json["runs"])) == (0, [], 2), told.err
    inputs = work / "runs" / "some" / "promptflow" / "inputs" / f"{told.json['runs'][1]}.jsonl"
    assert len(read_jsonl(inputs)) == len(failed)
    before = len(client.cloud.store.keys("flow-runs"))
    assert foundry_process(client, *asked).exit_code == 0
    assert len(client.cloud.store.keys("flow-runs")) == before


def ends_in_0(row: dict[str, Any]) -> bool:
    words = row["messages"][-2]["content"].rstrip("?").split()
    return words[2].endswith("0") and words[4].endswith("0")


def test_9_the_clouds_report_is_the_local_one_line_by_line(client, work, chats):
    told = foundry_process(client, "download", "--out", "runs/some", "--json")
    assert told.exit_code in {0, 3, 4}, told.err
    cloud = told.json
    assert (work / "runs" / "some" / "report.html").is_file()
    environment = child_environment(client) | {"PF_ENCRYPTION_KEY": new_encryption_key()}

    def local(*words: str) -> None:
        command = [sys.executable, "-m", "phi3flow", *words]
        ran = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=False)
        assert ran.returncode in {0, 3, 4}, ran.stderr

    local("connect", "phi3-base", "--azure")
    local("connect", "phi3-tuned", "--azure")
    sides = ["--base", "phi3-base", "--tuned", "phi3-tuned", "--packs", "none", "--runner", "pf"]
    local("compare", "--data", str(chats), *sides, "--out", "runs/local")
    here = read_json(work / "runs" / "local" / "report.json")
    for name in set(here) - {"lineage", "seconds", "unavailable"}:
        assert cloud[name] == here[name], name
    assert cloud["lineage"]["cloud runs"]
    (outputs,) = (work / "runs" / "local").rglob("output.jsonl")
    rows = sorted(read_jsonl(outputs), key=lambda row: row["line_number"])
    for side in ("base", "tuned"):
        answers = read_jsonl(work / "runs" / "some" / f"{side}-answers.jsonl")
        assert [row["answer"] for row in answers] == [row[side]["text"] for row in rows]


def test_list_says_what_is_there(client, capsys):
    assert foundry("list", "--json") == 0
    found = {(one["kind"], one["name"]) for one in shown(capsys)["found"]}
    assert found == {
        ("connection", "phi3-base"),
        ("connection", "phi3-tuned"),
        ("flow", "phi3flow-chat"),
        ("flow", "phi3flow-compare"),
        ("flow", "phi3flow-grade"),
    }


def test_no_key_is_anywhere_but_in_connections(client, work, capfd):
    planted = [
        key
        for item in client.cloud.store.below("", kind=online_endpoints.KIND)
        for key in online_endpoints.keys(client.cloud, item["id"]).values()
    ]
    told = capfd.readouterr()
    texts = [told.out, told.err, (client.folder / "requests.jsonl").read_text()]
    folders = [work / "runs", work / ".phi3flow", client.folder / "flow-runs", client.folder / "shares"]
    for folder in folders:
        texts += [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert planted
    assert len(texts) > 10
    for text in texts:
        assert not any(key in text for key in planted)


def test_z_delete_leaves_nothing_of_ours_in_the_project(client, names, capsys):
    assert foundry("delete", "--json") == 0
    told = shown(capsys)
    assert told["left"] == []
    assert {one["kind"] for one in told["removals"]} == {"flow", "connection", "project", "hub"}
    assert client.cloud.store.get(names.id(ML, names.hub)) is None
    assert client.cloud.store.get(names.workspace_id) is not None
