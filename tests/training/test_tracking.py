"""A finished run in MLflow: curves, lineage, and a model whose parameters work."""

import shutil
import sys
from importlib.metadata import version

import mlflow
import pandas as pd
import pytest
import torch
from counting import RECIPE, chat
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import read_manifest
from training.finetune import finetune
from training.tracking.mlflow_run import track, track_once


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small is slower on two
    folder = tmp_path_factory.mktemp("tracked")
    rows = [chat(i) for i in range(60)]
    write_jsonl(folder / "data" / "train.jsonl", rows[:50])
    write_jsonl(folder / "data" / "val.jsonl", rows[50:55])
    write_jsonl(folder / "data" / "test.jsonl", rows[55:])
    yield finetune(folder / "data", RECIPE, folder / "model").folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run_id = track(model, runs)
    yield mlflow.MlflowClient(f"sqlite:///{runs / 'mlflow.db'}"), run_id
    mlflow.set_tracking_uri(None)


def test_parameters_lineage_and_curves_are_there(run, model):
    client, run_id = run
    data = client.get_run(run_id).data
    manifest = read_manifest(model)
    assert data.params["learning_rate"] == "0.01"
    assert data.params["scratch.layers"] == "1"
    assert data.tags["sha256.train.jsonl"] == manifest["inputs"][0]["sha256"]
    assert data.tags["git_commit"] == manifest["commit"]
    assert data.tags["version.torch"] == torch.__version__
    losses = [(m.step, m.value) for m in client.get_metric_history(run_id, "eval_loss")]
    rows = [row for row in read_jsonl(model / "metrics.jsonl") if "eval_loss" in row]
    assert sorted(losses) == [(row["step"], row["eval_loss"]) for row in rows]
    assert {"loss.png", "manifest.json", "probes.jsonl"} <= {f.path for f in client.list_artifacts(run_id)}
    installed = mlflow.artifacts.load_text(f"runs:/{run_id}/environment.txt").splitlines()
    assert f"transformers=={version('transformers')}" in installed


def test_the_model_is_logged_after_its_evaluation(run, model):
    client, run_id = run
    result = read_manifest(model)["result"]
    [judged] = client.get_metric_history(run_id, "validation_loss")
    assert judged.value == result["validation_loss"]
    [logged] = client.get_run(run_id).outputs.model_outputs
    assert client.get_logged_model(logged.model_id).creation_timestamp >= judged.timestamp
    assert result["test_loss"] == client.get_run(run_id).data.metrics["test_loss"]


def test_the_logged_model_answers_as_the_probes_say_and_its_parameters_count(run, model):
    _, run_id = run
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    probe = next(row for row in read_jsonl(model / "probes.jsonl") if row["id"] == "single-turn")
    asked = pd.DataFrame({"messages": [probe["messages"]]})
    whole = loaded.predict(asked, params={"max_new_tokens": 32})
    assert whole == [probe["tuned_text"]]
    assert len(loaded.predict(asked, params={"max_new_tokens": 1})[0]) < len(whole[0])


def test_a_chat_that_cannot_be_answered_is_refused_with_its_field(run):
    _, run_id = run
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    said = {"role": "assistant", "content": "Hello."}
    for messages, field in (
        ([said], "messages"),
        ([{"role": "user", "content": " "}], r"messages\[0\].content"),
        ([{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}], r"\[1\].role"),
        ([{"role": "user", "content": "What comes after 7? " * 100}], "the model's context is 128"),
    ):
        with pytest.raises(MlflowException, match=field):
            loaded.predict(pd.DataFrame({"messages": [messages]}))
    asked = pd.DataFrame({"messages": [[{"role": "user", "content": "Hi"}]]})
    with pytest.raises(MlflowException, match="at least 1"):
        loaded.predict(asked, params={"max_tokens": 0})


def test_a_failed_log_is_made_up_by_the_same_command_and_only_once(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a store without a folder for artifacts puts them
    mlflow.set_tracking_uri(None)  # it keeps the last one in the environment,
    monkeypatch.setattr(fluent, "_active_experiment_id", None)  # and the experiment
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Phi3flowError, match="model is trained, but could not be logged: ") as caught:
        track_once(model, tmp_path)
    assert "run the same command again" in caught.value.hint
    store = f"sqlite:///{tmp_path / 'mine.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert track_once(model, tmp_path) == track_once(model, tmp_path)
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("phi3flow").experiment_id
    assert len(client.search_runs([experiment])) == 1


def test_a_logger_that_breaks_costs_neither_weights_nor_the_command(model, tmp_path, monkeypatch, capsys):
    """azureml-mlflow raises a TypeError beside a newer mlflow; a job's outputs are written before that."""
    from deploy.azure import job_outputs

    def store(store_uri=None, artifact_uri=None):
        raise TypeError("azureml_artifacts_builder() got an unexpected argument 'tracking_uri'")

    tracking_service._tracking_store_registry.register("broken", store)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "broken://workspace")
    mlflow.set_tracking_uri(None)
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns(".mlflow-run"))
    monkeypatch.setattr(sys, "argv", ["job", *(str(tmp_path / name) for name in ("model", "out", "card"))])
    job_outputs.main()
    assert "is trained, but could not be logged: azureml_artifacts_builder()" in capsys.readouterr().err
    assert (tmp_path / "out" / "MLmodel").is_file()
    assert (tmp_path / "card" / "probes.jsonl").is_file()


def test_in_an_azure_job_the_jobs_own_run_is_used_and_the_model_is_an_artifact(
    run, model, tmp_path, monkeypatch
):
    """A sqlite store with Azure's URI scheme, registered like azureml's plugin."""
    store = run[0].tracking_uri
    tracking_service._tracking_store_registry.register(
        "azureml",
        lambda store_uri=None, artifact_uri=None: SqlAlchemyStore(store, str(tmp_path / "artifacts")),
    )
    mlflow.set_tracking_uri(None)  # it keeps the last one in the environment,
    monkeypatch.setattr(fluent, "_active_experiment_id", None)  # and the experiment: a job starts afresh
    client = mlflow.MlflowClient("azureml://workspace")
    job = client.create_run(client.create_experiment("the-job")).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://workspace")
    monkeypatch.setenv("MLFLOW_RUN_ID", job)
    assert track(model, tmp_path / "unused") == job
    assert not (tmp_path / "unused").exists()
    assert client.get_run(job).data.metrics["validation_loss"] > 0
    files = {file.path for file in client.list_artifacts(job, "model")}
    assert {"model/MLmodel", "model/input_example.json"} <= files
    requirements = mlflow.artifacts.load_text(f"runs:/{job}/model/requirements.txt")
    assert "azureml-inference-server-http" in requirements
