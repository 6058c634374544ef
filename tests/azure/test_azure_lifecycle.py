"""The cloud half against the emulator: nothing -> traffic -> nothing, and what must not happen on the way."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure_client import take
from azure_emulator.emulator import Emulator
from azure_emulator.front.faults import Fault
from azure_emulator.ml import quota
from emulated import emulator_in
from recorded_comparison import compare_answers

from deploy.azure.shared.session import connect
from deploy.azure.train import wait_for
from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.settings import Settings

WRITES = {"PUT", "POST", "PATCH", "DELETE"}
ASKING = ("listkeys", "listsecrets", "getlogs", "/oauth2/")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator_in(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def cli(*words: str) -> int:
    return main(["azure", *words])


def asked(emulator: Emulator, before: int) -> list[Any]:
    return list(emulator.cloud.log.entries)[before:]


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def resources(emulator: Emulator) -> list[str]:
    return sorted(
        str(item["id"])
        for key in emulator.cloud.store.keys("resources")
        if (item := emulator.cloud.store.get(key))
    )


def test_1_a_plan_says_what_would_be_made_and_writes_nothing(client, capsys):
    before = len(client.cloud.log.entries)
    assert cli("provision", "--profile", "cpu", "--plan", "--json") == 0
    actions = shown(capsys)["actions"]
    assert {action["do"] for action in actions} == {"create"}
    assert {"workspace", "container registry", "managed identity", "role", "cluster"} <= {
        action["kind"] for action in actions
    }
    assert next(a for a in actions if a["kind"] == "cluster")["cost"] == "while it runs"
    providers = {action["name"] for action in actions if action["kind"] == "resource provider"}
    assert {"Microsoft.MachineLearningServices", "Microsoft.Cdn", "Microsoft.PolicyInsights"} <= providers
    writes = [entry for entry in asked(client, before) if entry.method in WRITES]
    assert [entry.path for entry in writes if not any(word in entry.path.lower() for word in ASKING)] == []


def test_2_provision_makes_it_once(client, capsys):
    assert cli("provision", "--profile", "cpu") == 0
    told = capsys.readouterr().err
    assert told.index("tenant ") < told.index("create ")
    made = resources(client)
    assert cli("provision", "--profile", "cpu", "--json") == 0
    assert {action["do"] for action in shown(capsys)["actions"]} == {"keep"}
    assert resources(client) == made


def test_3_train_runs_once_and_records_the_job(client, work):
    take("train", work, 0)
    steps = read_json(work / "run" / "manifest.json")["steps"]
    assert re.fullmatch(r"phi3flow-train-[0-9a-f]{16}-1", steps["train"]["job"])
    assert steps["train"]["tags"]["recipe"] == "tiny-cpu"
    assert (work / "run" / "tuned" / "probes.jsonl").is_file()
    before = len(client.cloud.log.entries)
    take("train", work, 0)
    assert [entry for entry in asked(client, before) if entry.method == "PUT"] == []


def test_3_a_job_can_be_submitted_by_one_login_and_waited_for_by_another(client, work, capsys):
    out = work / "submitted"
    with pytest.raises(BadInput, match="no submit is recorded there"):
        wait_for(connect(Settings.load(work)), out, 0)
    name = take("train", work, 0, out=out, wait=False)
    assert "train" not in read_json(out / "manifest.json")["steps"]
    assert cli("wait", "--minutes", "5", "--out", str(out), "--json") == 0
    assert shown(capsys)["completed"] is True
    assert read_json(out / "manifest.json")["steps"]["train"]["job"] == name
    assert (out / "tuned" / "probes.jsonl").is_file()


def test_3_a_wait_that_is_over_leaves_the_job_running(client, work):
    out = work / "waiting"
    take("train", work, 31, out=out, wait=False)
    assert wait_for(connect(Settings.load(work)), out, 0) is False
    assert wait_for(connect(Settings.load(work)), out, 60) is True


def test_3_a_login_that_expires_in_the_middle_of_a_wait_leaves_the_job_running(
    client, work, capsys, monkeypatch
):
    out = work / "expired"
    monkeypatch.setenv("AZURE_EMULATOR_TOKEN_SECONDS", "200")  # so few that each request asks for a new token
    monkeypatch.setenv("AZURE_EMULATOR_LOGGED_OUT", "")
    name = take("train", work, 32, out=out, wait=False)
    expiring = threading.Thread(target=expire_once_watched, args=(client, name))
    expiring.start()
    assert cli("wait", "--out", str(out)) == 1
    expiring.join()
    told = capsys.readouterr().err
    assert "the login has expired; what was begun goes on in Azure" in told
    assert "AADSTS70043" in told
    assert f"exists now: job {name}" in told
    monkeypatch.setenv("AZURE_EMULATOR_LOGGED_OUT", "")
    again = connect(Settings.load(work))
    assert wait_for(again, out, 0) is False
    again.ml.jobs.begin_cancel(name).result()


def expire_once_watched(emulator: Emulator, job: str) -> None:
    before = len(emulator.cloud.log.entries)
    while not any(entry.path.endswith(f"/jobs/{job}") for entry in asked(emulator, before)):
        time.sleep(0.05)
    os.environ["AZURE_EMULATOR_LOGGED_OUT"] = "AADSTS70043: The refresh token has expired or is invalid."


def test_4_a_failed_job_shows_its_log_and_the_next_attempt_is_another(client, work, capsys):
    with pytest.raises(Phi3flowError, match=r"-1 ended as failed") as failed:
        take("train", work, 13)
    assert "the loss is not a number" in f"{failed.value}{capsys.readouterr().err}"
    assert take("train", work, 13, plan=True).endswith("-2")


def compared(folder: Path, *, base_right: int, tuned_right: int) -> list[str]:
    """The options that name a new comparison of models which answer so many of 40 questions correctly."""
    compare_answers(folder, base_right=base_right, tuned_right=tuned_right)
    return ["--report", str(folder / "report.json")]


def test_5_deploy_verifies_at_no_traffic_and_promote_asks_for_the_verdict(client, work, tmp_path, capsys):
    out = ["--out", str(work / "run")]
    early = compared(tmp_path / "early", base_right=0, tuned_right=40)
    take("deploy", work, 0, engine="openvino")
    assert cli("status", "--json") == 0
    (served,) = shown(capsys)["served"]
    assert (served["traffic"], served["recipe"], served["state"]) == (0, "tiny-cpu", "Succeeded")
    assert cli("promote", *out) == 2
    assert "no comparison yet" in capsys.readouterr().err
    assert cli("promote", *out, *early) == 3
    assert "older than the deployment" in capsys.readouterr().err
    assert cli("promote", *out, *compared(tmp_path / "worse", base_right=40, tuned_right=0)) == 3
    assert "the verdict is hold: " in capsys.readouterr().err
    assert cli("promote", *out, *compared(tmp_path / "same", base_right=20, tuned_right=22)) == 4
    better = compared(tmp_path / "better", base_right=0, tuned_right=40)
    capsys.readouterr()
    assert cli("promote", *out, *better, "--json") == 0
    assert shown(capsys)["traffic"] == {served["deployment"]: 100}


def test_6_a_bad_model_is_stopped_and_the_live_one_is_untouched(client, work, capsys):
    before = live(client)
    take("train", work, 1)
    with pytest.raises(Phi3flowError, match=r"template, schema of .*did not pass; it gets no traffic"):
        take("deploy", work, 1, server="bad")
    assert "serving bad" in capsys.readouterr().err
    assert live(client) == before
    assert cli("teardown", "--old") == 0


def set_faults(emulator: Emulator, *faults: dict[str, Any]) -> None:
    emulator.cloud.faults.set([Fault.parse(fault) for fault in faults])


def live(emulator: Emulator) -> dict[str, Any]:
    found = next(item for item in resources(emulator) if re.search(r"onlineEndpoints/[^/]+$", item))
    return dict(emulator.cloud.store.require(found)["properties"]["traffic"])


@pytest.mark.parametrize(
    "failure",
    [
        ({}, "crash", ["the container does not become ready", "the weights are not there"]),
        (
            {"kind": "fail_operation", "code": "OutOfQuota", "message": "Not enough quota"},
            "tuned",
            ["no quota", "https://ml.azure.com/quota"],
        ),
        ({"kind": "fail_operation", "code": "ImageBuildFailure"}, "tuned", ["image could not be built"]),
    ],
)
def test_6_a_deployment_that_fails_leaves_the_live_one_alone(client, work, capsys, failure):
    fault, server, words = failure
    before = live(client)
    if fault:
        set_faults(client, {"method": "PUT", "route": "*/deployments/vllm-*", **fault})
    with pytest.raises(Phi3flowError) as failed:
        take("deploy", work, 1, server=server)
    set_faults(client)
    told = f"{capsys.readouterr().err}\n{failed.value}\n{failed.value.hint}"
    assert [word for word in words if word not in told] == []
    assert "exists now: " in told
    assert live(client) == before


def test_6_an_image_that_is_built_for_longer_than_one_waits_is_left_to_azure(
    client, work, capsys, monkeypatch
):
    assert cli("teardown", "--old") == 0
    before = live(client)
    monkeypatch.setenv("PHI3FLOW_AZURE_PATIENCE", "2")
    set_faults(client, {"kind": "hold_operation", "method": "PUT", "route": "*/deployments/vllm-*"})
    with pytest.raises(Phi3flowError, match=r"deployment vllm-\w+ is still going on after 2 seconds") as left:
        take("deploy", work, 1)
    assert "exists now: model phi3-tuned:" in str(left.value)
    assert "phi3flow azure status shows how it ends" in left.value.hint
    capsys.readouterr()
    assert cli("status", "--json") == 0
    served = json.loads(capsys.readouterr().out.lstrip("."))["served"]  # the SDK still waits, with dots
    assert [one["traffic"] for one in served if one["state"] == "Creating"] == [0]
    with pytest.raises(Phi3flowError, match="is still changing"):
        take("deploy", work, 1)
    monkeypatch.delenv("PHI3FLOW_AZURE_PATIENCE")
    seen = len(client.cloud.log.entries)
    requests.put(f"{client.url}/emulator/faults", json={"faults": []}, timeout=10).raise_for_status()
    assert take("deploy", work, 1).startswith("vllm-")
    assert [one for one in asked(client, seen) if one.method == "PUT" and "/deployments/" in one.path] == []
    assert live(client) == before


def test_7_a_second_rollout_and_its_rollback(client, work, capsys):
    first = live(client)
    take("train", work, 2)
    take("deploy", work, 2)
    report = compared(work / "run" / "comparison", base_right=0, tuned_right=40)
    out = ["--out", str(work / "run"), *report]
    assert live(client) == first
    assert cli("promote", "--traffic", "10", *out) == 0
    assert sorted(live(client).values()) == [10, 90]
    assert cli("rollback", *out[:2]) == 0
    assert live(client) == first
    assert cli("promote", *out) == 0
    assert live(client) != first
    assert cli("rollback", *out[:2]) == 0
    assert live(client) == first


def test_8_no_key_is_anywhere_but_in_memory(client, work):
    endpoint = next(item for item in resources(client) if re.search(r"onlineEndpoints/[^/]+$", item))
    from azure_emulator.endpoints import online_endpoints

    planted = list(online_endpoints.keys(client.cloud, endpoint).values())
    processes = subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
    ).stdout
    texts = [path.read_text(errors="replace") for path in (work / "run").rglob("*") if path.is_file()]
    texts += [(client.folder / "requests.jsonl").read_text(), processes]
    assert planted
    for text in texts:
        assert not any(key in text for key in planted)
        assert "sig=" not in text


def test_9_teardown_leaves_nothing_of_ours_and_everything_else(client, work, capsys):
    assert cli("teardown", "--expired", "--json") == 0
    assert all(one["do"] == "keep" for one in shown(capsys)["removals"])
    assert cli("teardown", "--json") == 0
    assert shown(capsys)["left"] == []
    assert [item for item in resources(client) if "/resourceGroups/" in item] == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 403, "code": "AuthorizationFailed", "message": "no"}, "a role is missing"),
        ({"status": 409, "code": "StorageAccountAlreadyTaken", "message": "no"}, "the name is taken"),
        ({"status": 400, "code": "SkuNotAvailable", "message": "no"}, "does not offer the size"),
    ],
)
def test_what_azure_refuses_is_one_sentence_with_a_way_on(client, capsys, fault, words):
    set_faults(
        client, {"kind": "error", "method": "PUT", "route": "*/storageAccounts/*", "times": 0, **fault}
    )
    assert cli("provision", "--profile", "cpu") == 1
    set_faults(client)
    told = capsys.readouterr().err
    assert words in told
    assert "exists now: resource group" in told
    assert "continue with: phi3flow" in told
    assert "Traceback" not in told


def test_an_operation_that_never_ends_is_left_to_azure(client, capsys, monkeypatch):
    monkeypatch.setenv("PHI3FLOW_AZURE_PATIENCE", "1")
    set_faults(client, {"kind": "hold_operation", "method": "PUT", "route": "*/workspaces/phi3flow"})
    assert cli("provision", "--profile", "cpu") == 1
    set_faults(client)
    told = capsys.readouterr().err
    assert "workspace phi3flow is still going on after 1 seconds" in told
    assert "exists now: resource group phi3flow" in told


def test_no_quota_names_the_family_the_cores_and_where_to_ask(client, capsys):
    assert cli("provision", "--profile", "gpu", "--nodes", "99") == 1
    told = capsys.readouterr().err
    assert "NCADSA100v4" in told
    assert "missing" in told
    assert "https://ml.azure.com/quota" in told


def test_quota_is_checked_for_serving_before_anything_is_paid_for(client, work, capsys):
    """One machine of four cores needs eight: Azure reserves a fifth more machines, rounded up."""
    quota.set_limits(client.cloud, {"standardESv3Family": 7})
    before = len(client.cloud.log.entries)
    with pytest.raises(Phi3flowError, match=r"8 cores needed, 7 of 7 free, 1 missing") as refused:
        take("deploy", work, 99)
    assert "Standard ESv3 Family Cluster Dedicated vCPUs in eastus2" in refused.value.hint
    assert "new cores limit 8" in refused.value.hint
    assert [entry for entry in asked(client, before) if entry.method == "PUT"] == []
    quota.set_limits(client.cloud, {"standardESv3Family": 100})


@pytest.mark.parametrize(("limit", "words"), [(-1, "no limit is set"), (100, "of 100 free")])
def test_a_limit_of_minus_one_is_no_limit(client, capsys, limit, words):
    quota.set_limits(client.cloud, {"standardESv3Family": limit})
    assert cli("provision", "--profile", "cpu", "--plan") == 0
    told = capsys.readouterr().err
    assert re.search(f"quota: Standard ESv3 Family Cluster Dedicated vCPUs: 16 cores needed, .*{words}", told)
    assert re.search(f"to serve tuned and base with openvino: Standard ESv3 Family .*{words}", told)
    quota.set_limits(client.cloud, {"standardESv3Family": 100})


def test_logged_out_says_how_to_log_in(client, capsys, monkeypatch):
    monkeypatch.setenv("AZURE_EMULATOR_LOGGED_OUT", "1")
    assert cli("status") == 1
    assert "az login" in capsys.readouterr().err


def test_without_a_subscription_nothing_is_asked(isolated, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("status") == 2
    assert "PHI3FLOW_AZURE_SUBSCRIPTION" in capsys.readouterr().err


def test_help_of_a_step_imports_no_sdk():
    code = (
        "import sys; from phi3flow.app.cli import main\n"
        "try: main(['azure', 'train', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('azure')], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
