"""A fine-tuning job of the model catalog, as a command: Azure's trainer is not public, so ours runs."""

import sys
from pathlib import Path

from azure_emulator.front.wire import Document, azure_error

ROOT = Path(__file__).parents[4]
TRAINER = Path(__file__).with_name("catalog_trainer.py")
WANTED = "learning_rate"


def completed(sent: Document) -> Document:
    """The properties of a job, with a command for `job_runner` where it is a fine-tuning job."""
    if sent.get("jobType") == "FineTuning":
        sent |= _as_command(sent)
    return sent


def _as_command(sent: Document) -> Document:
    """Raise 400 for what the service refuses."""
    details = sent["fineTuningDetails"]
    settings = details.get("hyperParameters") or {}
    if details.get("taskType") not in {"ChatCompletion", "chatCompletion"}:
        raise azure_error(400, "UserError", f"The task {details.get('taskType')} is not emulated.")
    if not sent.get("computeId"):
        raise azure_error(400, "UserError", "Serverless compute is not emulated: name a cluster.")
    inputs = {
        "train": details["trainingData"],
        "validation": details["validationData"],
        "model": details["model"],
    }
    words = "${{inputs.model}} ${{inputs.train}} ${{inputs.validation}} ${{outputs.registered_model}}"
    rate = float(settings.get(WANTED, 1e-5))
    command = f"PYTHONPATH={ROOT} HF_HUB_OFFLINE=1 {sys.executable} {TRAINER} {words} {rate}"
    return {"command": command, "inputs": inputs}
