"""The form of a model folder that this machine serves fastest: the folder, or an OpenVINO export of it.

The export computes in fp32 and is checked when it is made: its greedy answers to the model's probes must
equal those of transformers. It is made once and kept beside the model.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from deploy.scoring.load import OPENVINO_FILE, SMALL_MODEL
from phi3flow.core.child_process import module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.lineage import read_manifest, sha256_of

BYTES_PER_PARAMETER = 4
EXPORT_SECONDS = 1800.0
EXPORTING = ("openvino_genai", "openvino", "optimum.intel")


def served_form(model: Path) -> Path:
    """The folder to serve for `model`. A line says why it is the model itself where an export would pay.

    A model below 20 million parameters is served as it is: an export takes longer than its answers.
    """
    if (model / OPENVINO_FILE).is_file() or _weights_bytes(model) < SMALL_MODEL * BYTES_PER_PARAMETER:
        return model
    export = model.with_name(f"{model.name}-openvino")
    if _is_export_of(export, model):
        return export
    if reason := _why_not(export) or _export(model, export):
        say(f"{model} is served by the slower transformers engine: {reason}")
        return model
    return export


def _why_not(export: Path) -> str:
    missing = [name for name in EXPORTING if not _is_installed(name)]
    if missing:
        return f"{missing[0]} is not installed (docs/endpoint.md)"
    if export.exists() and (read_manifest(export) or {}).get("format") != "openvino":
        return f"{export} is not an export of it"
    return ""


def _export(model: Path, export: Path) -> str:
    """Make the export in a process of its own, whose memory ends with it. Why it failed, or an empty text."""
    say(f"exporting {model} for the faster openvino engine, once")
    shutil.rmtree(export, ignore_errors=True)  # of an earlier model
    log = export.with_name(f"{export.name}.log")
    command = module_command("phi3flow", "export", model, "--format", "openvino", "--out", export)
    try:
        code = run_child(command, log, seconds=EXPORT_SECONDS)
    except TimeoutError:
        return f"the export took longer than {EXPORT_SECONDS:.0f} s"
    return f"the export failed, its log is {log}" if code else ""


def _is_export_of(export: Path, model: Path) -> bool:
    inputs = (read_manifest(export) or {}).get("inputs", [])
    return bool(inputs) and inputs[0]["sha256"] == sha256_of(model)


def _weights_bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False
