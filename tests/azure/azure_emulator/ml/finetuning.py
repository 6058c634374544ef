"""A fine-tuning job of the model catalog, as a command: Azure's trainer is not public, so ours runs."""

import sys
from pathlib import Path

from azure_emulator.arm.store import now
from azure_emulator.front.answers import fill
from azure_emulator.front.wire import Document, front_error
from azure_emulator.ml.registry import require_in

ROOT = Path(__file__).parents[4]
TRAINER = Path(__file__).with_name("catalog_trainer.py")
WANTED = "learning_rate"


def shape(properties: Document, version: str) -> None:
    """As Azure shows a fine-tuning job: the command that stands for its trainer is ours alone."""
    _shape(properties)
    if version < "2024-10":
        _as_before(properties)


def _as_before(properties: Document) -> None:
    """The form of the API versions before 2024-10, which knew nothing of instance types."""
    for name in ("resources", "queueSettings"):
        properties.pop(name, None)
    properties |= {"computeId": None, "secretsConfiguration": None}
    details = properties["fineTuningDetails"]
    for name in ("trainingData", "validationData", "model"):
        details[name]["pathOnCompute"] = None
    for one in properties["outputs"].values():
        fill(one, dict.fromkeys(("assetVersion", "pathOnCompute", "autoDeleteSetting")))


def _shape(properties: Document) -> None:
    details = properties["fineTuningDetails"]
    model = details["model"]["uri"]
    for name in ("command", "inputs", "environmentId", "codeId"):
        properties.pop(name, None)
    outputs = properties["outputs"]
    outputs.pop("default", None)
    nothing = ("description", "services", "computeId", "identity", "componentId", "notificationSetting")
    fill(properties, {**dict.fromkeys((*nothing, "queueSettings")), "resources": {"instanceTypes": []}})
    fill(properties, {"tags": {}, "properties": {}, "isArchived": False})
    details["taskType"] = details["taskType"][:1].upper() + details["taskType"][1:]
    for name in ("trainingData", "validationData", "model"):
        fill(details[name], {"description": None, "mode": "ReadOnlyMount"})
    properties["services"] = None
    for one in outputs.values():
        fill(one, {"description": None})
        one["uri"] = None  # Azure registers the model itself, by the output's asset name
    fill(properties["properties"], _lineage(details, model, outputs))
    if properties["status"] in {"Starting", "Preparing", "Queued"}:
        properties["status"] = "Running"


def _lineage(details: Document, model: str, outputs: Document) -> Document:
    named = next((one.get("assetName") for one in outputs.values()), None)
    return {
        "PipelineType": "FineTuning",
        "original_model_id": model,
        "azureml.ModelName": model.rsplit("/models/", maxsplit=1)[-1].split("/", maxsplit=1)[0],
        "azureml.PipelineType": "FineTuning",
        "azureml.original_model_id": model,
        "azureml.trainingData.assetId": details["trainingData"]["uri"],
        "azureml.validationData.assetId": details["validationData"]["uri"],
        "_fineTuningJobType": "MaaP",
        "_outputModelName": named,
        "StartTimeUtc": now(),
    }


def completed(sent: Document, region: str) -> Document:
    """The properties of a job, with a command for `job_runner` where it is a fine-tuning job."""
    if sent.get("jobType") == "FineTuning":
        sent |= _as_command(sent, region)
    return sent


def _as_command(sent: Document, region: str) -> Document:
    """Raise 400 for what the service refuses."""
    details = sent["fineTuningDetails"]
    require_in(region, str(details["model"]["uri"]))
    settings = details.get("hyperParameters") or {}
    if details.get("taskType") not in {"ChatCompletion", "chatCompletion"}:
        raise front_error(400, "UserError", f"The task {details.get('taskType')} is not emulated.")
    if not sent.get("computeId"):
        raise front_error(400, "UserError", "Serverless compute is not emulated: name a cluster.")
    inputs = {
        "train": details["trainingData"],
        "validation": details["validationData"],
        "model": details["model"],
    }
    words = "${{inputs.model}} ${{inputs.train}} ${{inputs.validation}} ${{outputs.registered_model}}"
    rate = float(settings.get(WANTED, 1e-5))
    command = f"PYTHONPATH={ROOT} HF_HUB_OFFLINE=1 {sys.executable} {TRAINER} {words} {rate}"
    return {"command": command, "inputs": inputs}
