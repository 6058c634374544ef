"""What Azure would install for jobs and deployments, resolved by pip; and the pair that logs a job's run.

The emulator resolves an environment before its first job where it is started with `resolve`.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import Environment
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator, Options
from emulated import GROUP, QUIET, WORKSPACE, UserCredential, client_of, workspace_in

CONTAINER = Path(__file__).parents[2] / "deploy" / "azure" / "container"
FILES = ("environment-train.yaml", "deployments/conda.yaml")
PAIR = ("azureml-mlflow", "mlflow")
# As MLflow asks for a run's artifacts. Older plugins do not know `tracking_uri`.
ASKING = """
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
tracking = "azureml://eastus2.api.azureml.ms/mlflow/v2.0/subscriptions/s/resourceGroups/g"
tracking += "/providers/Microsoft.MachineLearningServices/workspaces/w"
uri = f"{tracking}/experiments/e/runs/r/artifacts"
get_artifact_repository(uri, tracking_uri=tracking)
"""

pytestmark = pytest.mark.install


def packages(name: str) -> list[str]:
    return list(yaml.safe_load((CONTAINER / name).read_text())["dependencies"][-1]["pip"])


def pip(python: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", FILES)
def test_every_environment_can_be_resolved(name: str, tmp_path: Path) -> None:
    ran = pip(sys.executable, "--dry-run", "--ignore-installed", "--target", str(tmp_path), *packages(name))
    assert ran.returncode == 0, ran.stderr


def test_mlflow_and_azures_plugin_work_with_each_other(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    python = str(tmp_path / "bin" / "python")
    pair = [one for one in packages(FILES[0]) if one.partition("==")[0] in PAIR]
    ran = pip(python, *pair)
    assert ran.returncode == 0, ran.stderr
    asked = subprocess.run(
        [python, "-c", ASKING], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # mlflow leaves a database where it runs
    # No job's token is here; getting as far as to ask for it takes both packages.
    assert "An authorization token was not set" in asked.stderr, asked.stderr


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        (["azureml-mlflow==1.62.0.post6", "mlflow==3.17.2"], "Failed", "conflict"),
        (["azureml-mlflow==1.62.0.post6", "mlflow==3.15.0"], "Completed", "pip resolves the packages"),
    ],
)
def test_the_emulator_resolves_an_environment_before_its_first_job(
    wanted: list[str], status: str, words: str, tmp_path: Path
) -> None:
    """The pair of versions that cost a training its weights is found before the training starts."""
    with Emulator(Options(tmp_path, resolve=True)) as azure, client_of(azure):
        register(azure.cloud, *USED)
        workspace_in(azure)
        ml = MLClient(UserCredential(), tokens.SUBSCRIPTION, GROUP, WORKSPACE, **QUIET)
        conda = {"name": "pair", "dependencies": [{"pip": wanted}]}
        ml.environments.create_or_update(Environment(name="pair", version="1", image="i:1", conda_file=conda))
        job = command(name="job", command="true", environment="azureml:pair:1", compute="cluster")
        ml.jobs.create_or_update(job)
        while (found := str(ml.jobs.get("job").status)) not in {"Completed", "Failed"}:
            time.sleep(1)
    log = next(tmp_path.rglob("20_image_build_log.txt")).read_text()
    assert (found, words in log) == (status, True), log
