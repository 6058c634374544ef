"""Log a finished run to MLflow: parameters, curves, lineage, the loss curve and a model that answers chats.

The store is a local sqlite file, or whatever `MLFLOW_TRACKING_URI` names; Azure ML sets it in its jobs.
"""

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError, first_line, translating
from phi3flow.core.files import write_text
from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.lineage import read_manifest

LOCAL_STORE = "mlflow.db"
EXPERIMENT = "phi3flow"
NOTE = ".mlflow-run"  # holds the run's id; hidden: not part of the folder's hash
ENVIRONMENT = "environment.txt"
METRICS_PER_WRITE = 1000  # the limit of MLflow's REST API
PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
CODE = ("phi3flow", "training")
SERVING = ("mlflow", "torch", "transformers", "requests")
# Azure's no-code scoring image expects these in the model's own requirements.
AZURE_SERVING = ("azureml-ai-monitoring", "azureml-contrib-services", "azureml-inference-server-http")


def track_once(folder: Path, runs: Path) -> str:
    """`track` unless it was done before. Returns the run's id; raises Phi3flowError whatever goes wrong."""

    def refused(error: Exception) -> Exception:
        return Phi3flowError(
            f"{folder} is trained, but could not be logged: {first_line(error)}",
            hint="check MLFLOW_TRACKING_URI and run the same command again: it logs without training again",
        )

    note = folder / NOTE
    if not note.exists():
        with translating({Exception: refused}):  # any: stores are plugins, and raise what they like
            write_text(note, track(folder, runs) + "\n")
    return note.read_text(encoding="utf-8").strip()


def track_if_possible(folder: Path, runs: Path) -> None:
    """`track_once`, or a warning: a model that is trained is worth more than its curves."""
    try:
        track_once(folder, runs)
    except Phi3flowError as error:
        say(f"{error}\n  {error.hint}")


def track(folder: Path, runs: Path) -> str:
    """Log the model folder `folder` and what its manifest holds; returns the id of the MLflow run."""
    os.environ.setdefault(PROGRESS_BAR, "false")  # mlflow reads it when it is imported
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _choose_store(runs)
    manifest = read_manifest(folder) or {}
    with mlflow.start_run(run_name=folder.name, tags=_tags(manifest)) as run:
        mlflow.log_params(_flat(manifest["recipe"]) | {"seed": manifest["seed"]})
        _log_curves(run.info.run_id, read_jsonl(folder / "metrics.jsonl"))
        numbers = {
            name: value for name, value in manifest["result"].items() if isinstance(value, int | float)
        }
        mlflow.log_metrics(numbers)
        for name in ("loss.png", "manifest.json", "probes.jsonl"):
            mlflow.log_artifact(str(folder / name))
        mlflow.log_text(_installed(), ENVIRONMENT)
        _log_model(folder)
    run_id: str = run.info.run_id
    return run_id


def _log_curves(run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Write hundreds of rows in few requests: the sqlite store commits each one."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [
        Metric(name, float(value), now, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    for start in range(0, len(points), METRICS_PER_WRITE):
        MlflowClient().log_batch(run_id, metrics=points[start : start + METRICS_PER_WRITE])


def _choose_store(runs: Path) -> None:
    """The store that MLFLOW_TRACKING_URI names (in a job with the job's own run), or a file in `runs`."""
    import mlflow
    from mlflow.environment_variables import MLFLOW_RUN_ID, MLFLOW_TRACKING_URI

    if not MLFLOW_TRACKING_URI.is_set():
        runs.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{(runs / LOCAL_STORE).resolve()}")
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:  # by default it writes to the current folder
            mlflow.create_experiment(EXPERIMENT, artifact_location=(runs / "mlartifacts").resolve().as_uri())
    if not MLFLOW_RUN_ID.is_set():
        mlflow.set_experiment(EXPERIMENT)


def _tags(manifest: Mapping[str, Any]) -> dict[str, str]:
    hashes = {f"sha256.{Path(a['path']).name}": a["sha256"] for a in manifest.get("inputs", [])}
    identity = manifest.get("identity", {})
    hub = {"base": f"{identity['model']}@{manifest.get('revision')}"} if identity.get("model") else {}
    commit = {"git_commit": manifest["commit"]} if manifest.get("commit") else {}
    versions = {f"version.{name}": version(name) for name in ("torch", "transformers", "trl")}
    python = {"version.python": platform.python_version(), "platform": platform.platform()}
    return hashes | hub | commit | versions | python | {"command": manifest.get("command", "")}


def _installed() -> str:
    """Every installed distribution, in the format of `pip freeze`."""
    return "".join(sorted({f"{d.metadata['Name']}=={d.version}\n" for d in distributions()}, key=str.lower))


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value}
    return {name: value for name, value in flat.items() if value is not None}


def save_mlflow_model(folder: Path, path: Path, *, azure: bool) -> None:
    """Write the MLflow model of `folder` to `path`; `azure` adds what Azure's scoring image needs."""
    import mlflow

    mlflow.pyfunc.save_model(path=str(path), **_model(folder, azure=azure))


def _log_model(folder: Path) -> None:
    """Log the MLflow model; on Azure, whose store has no logged models, as an artifact of the run."""
    import mlflow

    if mlflow.get_tracking_uri().startswith("azureml"):
        with TemporaryDirectory() as scratch:
            save_mlflow_model(folder, Path(scratch) / "model", azure=True)
            mlflow.log_artifacts(scratch)
    else:
        mlflow.pyfunc.log_model(name="model", **_model(folder, azure=False))


def _model(folder: Path, *, azure: bool) -> dict[str, Any]:
    """Arguments of MLflow's save_model: the folder, our code, and the versions it was trained with."""
    from training.tracking.mlflow_chat import EXAMPLE, MODEL, signature

    root = Path(__file__).parents[2]
    pinned = [f"{name}=={version(name).split('+')[0]}" for name in SERVING]
    return {
        "python_model": str(Path(__file__).with_name("mlflow_chat.py")),
        "artifacts": {MODEL: str(folder)},
        "code_paths": [str(root / package) for package in CODE],
        "signature": signature(),
        "input_example": EXAMPLE,
        "pip_requirements": pinned + [*AZURE_SERVING] * azure,
    }
