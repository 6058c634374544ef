"""`azure train --nodes 2` with the real packages: the emulator starts both ranks, which train one model."""

import pytest
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator, Options
from counting import chat
from emulated import client_of

from deploy.azure.provision import provision_steps
from deploy.azure.shared.plan import carry_out
from deploy.azure.shared.session import connect
from deploy.azure.shared.sizes import profile_for
from deploy.azure.train import Training, train
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.settings import Settings

NODES = 2
RECIPE = """
steps = 4
batch_size = 4
learning_rate = 1e-2
max_length = 64
eval_every = 2

[scratch]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
layers = 1
heads = 2
context = 128
"""


@pytest.fixture
def asked(tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", [chat(i) for i in range(32)])
    write_jsonl(tmp_path / "data" / "val.jsonl", [chat(i) for i in range(32, 40)])
    (tmp_path / "mine.toml").write_text(RECIPE)
    return Training(tmp_path / "data", str(tmp_path / "mine.toml"), None, 0, NODES, profile_for("cpu"))


@pytest.mark.slow
def test_a_job_on_two_nodes_trains_one_model(asked, tmp_path, isolated, monkeypatch):
    with Emulator(Options(tmp_path / "cloud")) as emulator, client_of(emulator):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        cloud = connect(Settings.load(tmp_path))
        carry_out(provision_steps(cloud, profile_for("cpu"), NODES), plan=False)
        name = train(cloud, asked, tmp_path / "run", plan=False)[1]
        cloud.ml.jobs.download(name, download_path=tmp_path / "all", all=True)
        cloud.ml.jobs.download(name, download_path=tmp_path / "all", output_name="model")
    logs = [
        next((tmp_path / "all").rglob(f"std_log_process_{rank}.txt")).read_text() for rank in range(NODES)
    ]
    assert "tuned step" in logs[0] and "next: phi3flow serve tuned" in logs[0]
    assert logs[1].strip().endswith("rank 1: done; rank 0 writes tuned")
    assert read_json(tmp_path / "run" / "tuned" / "manifest.json")["result"]["steps"] == 4
    assert len(list((tmp_path / "all").rglob("MLmodel"))) == 1
