"""Fine-tuning from the model catalog: Azure's job, our card, and the deploy path of `azure train`."""

import json
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError
from azure_emulator.arm.store import resource_document
from azure_emulator.client import tokens
from emulated import client_of, emulator_in
from foundry_cloud import write_chats

from deploy.azure.shared.assets import model_asset
from deploy.azure.shared.job import output_path
from deploy.azure.shared.session import connect
from deploy.foundry.catalog import registered_model
from phi3flow.app.cli import main
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.settings import Settings

MODEL = "Phi-3-mini-4k-instruct:11"
HELD_OUT = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog-data")
    rows = write_chats(folder / "all.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(rows[HELD_OUT:]))
    (folder / "val.jsonl").write_text("".join(rows[:HELD_OUT]))
    return folder


def finetune(data: Path, *words: str) -> int:
    settings = ["--learning-rate", "0.005", "--profile", "cpu", "--out", "runs/catalog"]
    return main(["foundry", "finetune", "--data", str(data), *settings, *words])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "Phi-3-mini-4k-instruct"], "not a Phi mini of the catalog with its version"),
        (["--model", "Llama-3:1"], "not a Phi mini of the catalog with its version"),
        (["--model", MODEL, "--scheduler", "cosin"], "did you mean 'cosine'"),
    ],
)
def test_what_the_catalog_could_not_train_is_refused_before_anybody_logs_in(
    client, data, words, told, capsys
):
    before = len(client.cloud.log.entries)
    assert finetune(data, *words) == 2
    assert told in capsys.readouterr().err
    assert len(client.cloud.log.entries) == before


def test_a_plan_names_the_job_and_uploads_nothing(client, data, capsys):
    assert finetune(data, "--model", MODEL, "--plan", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["do"], one["kind"]) for one in told["actions"]] == [("create", "job")]
    assert client.cloud.store.below("", kind="Microsoft.MachineLearningServices/workspaces/jobs") == []


def test_the_tuned_model_is_the_one_that_the_service_registered(client, names, work):
    """Its output has no address: what a client would register from there is refused."""
    job = f"{names.workspace_id}/jobs/phi3flow-catalog-1"
    output = {"assetName": "phi3-catalog-x", "jobOutputType": "mlflow_model", "uri": "azureml://any"}
    model = {"uri": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"}
    data = {"uri": "azureml://datastores/workspaceblobstore/paths/a", "jobInputType": "uri_file"}
    details = {"taskType": "chatCompletion", "trainingData": data, "validationData": data}
    details |= {"modelProvider": "Custom", "hyperParameters": {}}
    properties = {
        "jobType": "FineTuning",
        "status": "Completed",
        "outputs": {"registered_model": output},
        "fineTuningDetails": {**details, "model": {**model, "jobInputType": "mlflow_model"}},
    }
    kind = "Microsoft.MachineLearningServices/workspaces"
    store = client.cloud.store
    store.put(resource_document(job, f"{kind}/jobs", {"properties": properties}, None))
    cloud = connect(Settings.load(work))
    from_output = output_path("phi3flow-catalog-1", "registered_model")
    with pytest.raises(HttpResponseError):
        model_asset(cloud, "mine", "1", from_output, kind="mlflow_model", tags={}).make()
    with pytest.raises(Phi3flowError, match="has registered no model phi3-catalog-x"):
        registered_model(cloud, "phi3flow-catalog-1")
    asset = f"{names.workspace_id}/models/phi3-catalog-x/versions/1"
    held = {"modelUri": "azureml://any", "modelType": "mlflow_model", "stage": None}
    store.put(resource_document(asset, f"{kind}/models/versions", {"properties": held}, None))
    assert registered_model(cloud, "phi3flow-catalog-1") == "phi3-catalog-x:1"
    store.delete(job)


def test_a_region_without_the_model_is_named_and_what_else_there_is(
    data, tmp_path, isolated, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with emulator_in(tmp_path / "cloud") as azure, client_of(azure):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        monkeypatch.setenv("PHI3FLOW_AZURE_REGION", "spaincentral")
        assert main(["azure", "provision", "--profile", "cpu"]) == 0
        assert finetune(data, "--model", "Phi-4-mini-instruct:1") == 1
    told = capsys.readouterr().err
    assert "the model catalog of this region does not have the model" in told
    assert "Phi-4-mini-instruct/versions/1 is not available in region spaincentral" in told
    assert "another PHI3FLOW_AZURE_REGION" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_catalog_model_is_tuned_verified_and_served(client, data, work, capsys):
    """Two jobs that import torch, and a server: minutes."""
    assert finetune(data, "--model", MODEL) == 0
    train = read_json(work / "runs" / "catalog" / "manifest.json")["steps"]["train"]
    assert train["tags"]["lr_scheduler_type"] == "cosine"
    assert train["tags"]["learning_rate"] == "0.005"
    assert train["base"].startswith("phi3-base:")
    probes = read_jsonl(work / "runs" / "catalog" / "tuned" / "probes.jsonl")
    assert any(probe["tuned_text"] != probe["base_text"] for probe in probes)
    jobs = client.cloud.store.below("", kind="Microsoft.MachineLearningServices/workspaces/jobs")
    details = next(job["properties"]["fineTuningDetails"] for job in jobs if "catalog" in job["name"])
    assert details["model"]["uri"] == "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/11"
    models = client.cloud.store.below("", kind="Microsoft.MachineLearningServices/workspaces/models/versions")
    (catalog,) = [one for one in models if "/models/phi3-catalog-" in one["id"]]
    assert "phi3flow" not in (catalog.get("tags") or {})  # registered by the service, not by us
    capsys.readouterr()
    assert finetune(data, "--model", MODEL, "--json") == 0
    assert {one["do"] for one in json.loads(capsys.readouterr().out)["actions"]} == {"keep"}
    assert len(client.cloud.store.below("", kind="Microsoft.MachineLearningServices/workspaces/jobs")) == len(
        jobs
    )
    assert main(["azure", "deploy", "--engine", "vllm", "--out", "runs/catalog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deployed"]["deployment"].startswith("vllm-")
