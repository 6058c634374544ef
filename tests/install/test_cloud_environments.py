"""What Azure would install for jobs and deployments, resolved by pip; and the pair that logs a job's run."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    asked = subprocess.run([python, "-c", ASKING], capture_output=True, text=True, check=False)
    # No job's token is here; getting as far as to ask for it takes both packages.
    assert "An authorization token was not set" in asked.stderr, asked.stderr
