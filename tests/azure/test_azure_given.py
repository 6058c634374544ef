"""Parts that somebody made in the portal, as the tutorials do, given by name and used without our tag."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure_client import take
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import REGION, UserCredential, emulator_in

from deploy.azure.shared.names import Names
from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.settings import Settings

ML = "Microsoft.MachineLearningServices/workspaces"
GIVEN = {
    "PHI3FLOW_AZURE_IDENTITY": "portal-identity",
    "PHI3FLOW_AZURE_COMPUTE": "portal-cluster",
    "PHI3FLOW_AZURE_ENDPOINT": "portal-endpoint",
    "PHI3FLOW_AZURE_ENVIRONMENT": "portal-environment:7",
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator_in(tmp_path_factory.mktemp("cloud")) as running:
        register(running.cloud, *USED)
        yield running


def put(resource_id: str, **body: Any) -> None:
    from azure.mgmt.resource.resources import ResourceManagementClient

    arm = ResourceManagementClient(UserCredential(), tokens.SUBSCRIPTION)
    body = {"location": REGION, **body}
    arm.resources.begin_create_or_update_by_id(resource_id, body, api_version="2024-04-01").result()


def make_in_the_portal(names: Names) -> None:
    scale = {"minNodeCount": 0, "maxNodeCount": 1}
    machines = {"vmSize": "Standard_E4s_v3", "scaleSettings": scale}
    put(names.id("Microsoft.ManagedIdentity/userAssignedIdentities", "portal-identity"))
    cluster = {"computeType": "AmlCompute", "properties": machines}
    put(names.compute_id("portal-cluster"), properties=cluster)
    put(f"{names.workspace_id}/onlineEndpoints/portal-endpoint", properties={"authMode": "Key"})
    environment = f"{names.workspace_id}/environments/portal-environment/versions/7"
    put(environment, properties={"image": "python:3.11"})


def test_the_four_parts_are_used_and_stay(client, work, monkeypatch, capsys):
    assert main(["azure", "provision", "--profile", "cpu"]) == 0
    ours = Names.of(Settings.load(work))
    make_in_the_portal(ours)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert main(["azure", "provision", "--profile", "cpu", "--json"]) == 0
    actions = json.loads(capsys.readouterr().out)["actions"]
    (cluster,) = [one for one in actions if one["kind"] == "cluster"]
    assert (cluster["name"], cluster["do"]) == ("portal-cluster", "keep")
    assert "managed identity" not in {one["kind"] for one in actions}
    assert {one["do"] for one in actions if one["kind"] == "role"} == {"create"}  # for the given identity
    job = take("train", work, 0, compute="portal-cluster")
    properties = client.cloud.store.require(f"{ours.workspace_id}/jobs/{job}")["properties"]
    assert properties["environmentId"].endswith("/environments/portal-environment/versions/7")
    assert properties["computeId"].endswith("portal-cluster")
    deployment = take("deploy", work, 0)
    take("promote", work, 0)
    endpoint = client.cloud.store.require(f"{ours.workspace_id}/onlineEndpoints/portal-endpoint")
    assert endpoint["properties"]["traffic"] == {deployment: 100}
    assert "phi3flow" not in endpoint["tags"]
    assert main(["azure", "status", "--json"]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert (served["endpoint"], served["deployment"]) == ("portal-endpoint", deployment)
    assert main(["azure", "teardown", "--plan", "--json"]) == 0
    left = json.loads(capsys.readouterr().out)["left"]
    assert {"endpoint portal-endpoint", "cluster portal-cluster"} <= set(left)
    assert f"deployment portal-endpoint/{deployment}" in left  # it takes traffic


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PHI3FLOW_AZURE_IDENTITY", "there is no managed identity"),
        ("PHI3FLOW_AZURE_ENVIRONMENT", "there is no environment missing"),
    ],
)
def test_a_given_part_that_is_not_there_is_named(client, work, monkeypatch, name, words):
    monkeypatch.setenv(name, "missing")
    step = "provision" if "IDENTITY" in name else "train"
    with pytest.raises(BadInput, match=words):
        take(step, work, 0)


def test_the_reason_why_an_image_cannot_be_built_is_shown(client, work, monkeypatch, tmp_path):
    ours = Names.of(Settings.load(work))
    conda = "dependencies: [{pip: [mlflow=3]}]"
    put(
        f"{ours.workspace_id}/environments/broken/versions/1", properties={"image": "i:1", "condaFile": conda}
    )
    monkeypatch.setenv("PHI3FLOW_AZURE_ENVIRONMENT", "broken:1")
    with pytest.raises(Phi3flowError, match=r"ended as failed.*(\n.*)*names no package by 'mlflow=3'"):
        take("train", work, 0, out=tmp_path / "run")


def test_a_deployment_file_of_ones_own_turns_every_knob_of_the_tutorials(client, work, tmp_path):
    """Variables, concurrency, queue time, probes, instances and the environment's name."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: any\nendpoint_name: any\nmodel: azureml:any:1\nenvironment: azureml:portal-environment:7\n"
        "instance_type: Standard_E4s_v3\ninstance_count: 2\n"
        "environment_variables: {MINE: here}\n"
        "request_settings: {max_concurrent_requests_per_instance: 3, max_queue_wait_ms: 700}\n"
        "readiness_probe: {initial_delay: 11, period: 1, failure_threshold: 200}\n"
    )
    take("train", work, 0)
    name = take("deploy", work, 0, file=file)
    (found,) = [
        one
        for one in client.cloud.store.below("", kind=f"{ML}/onlineEndpoints/deployments")
        if one["name"] == name
    ]
    properties = found["properties"]
    assert properties["environmentId"].endswith("/portal-environment/versions/7")
    assert properties["environmentVariables"]["MINE"] == "here"
    assert properties["requestSettings"]["maxConcurrentRequestsPerInstance"] == 3
    assert properties["requestSettings"]["maxQueueWait"] == "PT0.7S"
    assert properties["readinessProbe"]["initialDelay"] == "PT11S"
    assert found["sku"]["capacity"] == 2


def test_what_is_no_deployment_file_is_refused_before_anything_is_made(client, work, tmp_path):
    (tmp_path / "bad.yaml").write_text("instance_type: 7\nwhat: ever\n")
    with pytest.raises(BadInput, match=r"bad\.yaml: not a deployment file"):
        take("deploy", work, 0, file=tmp_path / "bad.yaml")
