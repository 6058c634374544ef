"""The form of a model folder that this machine serves fastest: an int8 OpenVINO export, or the folder itself.

Without a GPU the export answers several times as fast. It is made once, checked against the model
(`deploy.export`), and kept beside it.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import psutil

from deploy.scoring.load import OPENVINO_FILE, is_small
from phi3flow.core.child_process import child, module_command
from phi3flow.core.console import say
from phi3flow.core.lineage import read_manifest, sha256_of
from phi3flow.core.sides import SIDES
from training.recipes.training_arguments import has_gpu

EXPORT_SECONDS = 1800.0
EXPORT_MEMORY = 4  # times the folder; SmolLM2-135M took 2.8 times its 0.54 GB
EXPORTING = ("openvino", "openvino_genai", "nncf", "optimum")


def served_forms(run: Path) -> dict[str, Path]:
    """What to serve for base and tuned, by side: two exports or none, so that both have one arithmetic."""
    models = {side.name: run / side.name for side in SIDES}
    forms = _forms(list(models.values()))
    exported = all(forms[model] != model for model in models.values())
    return {name: forms[model] if exported else model for name, model in models.items()}


def served_form(model: Path) -> Path:
    """The folder to serve for `model`. Says why it is the model itself where an export would pay.

    A model below 20 million parameters is served as it is: an export takes longer than its answers.
    """
    return _forms([model])[model]


def _forms(models: Sequence[Path]) -> dict[Path, Path]:
    """Each model's export, made where it is missing, or the model itself."""
    forms = {model: model if _needs_none(model) else _export_of(model) for model in models}
    missing = [model for model in models if forms[model] != model and not _is_made(model)]
    reasons = {model: _why_not(model) for model in missing}
    reasons |= _export([model for model in missing if not reasons[model]])
    for model, reason in reasons.items():
        if reason:
            say(f"{model} is served by the slower transformers engine: {reason}")
            forms[model] = model
    return forms


def _needs_none(model: Path) -> bool:
    return is_small(model) or has_gpu() or (model / OPENVINO_FILE).is_file()


def _export_of(model: Path) -> Path:
    return model.with_name(f"{model.name}-int8")


def _is_made(model: Path) -> bool:
    inputs = (read_manifest(_export_of(model)) or {}).get("inputs", [])
    return bool(inputs) and inputs[0]["sha256"] == sha256_of(model)


def _why_not(model: Path) -> str:
    export = _export_of(model)
    missing = next((name for name in EXPORTING if find_spec(name) is None), None)
    if missing:
        return f"{missing} is not installed (docs/endpoint.md)"
    if export.exists() and (read_manifest(export) or {}).get("format") != "openvino":
        return f"{export} is not an export of it"
    return ""


def _export(models: Sequence[Path]) -> dict[Path, str]:
    """Make exports in processes of their own, whose memory ends with them: side by side where it is enough.

    Returns why each failed, or an empty text.
    """
    needed = sum(_size(model) for model in models) * EXPORT_MEMORY
    groups = [models] if needed < psutil.virtual_memory().available else [[model] for model in models]
    outcomes: dict[Path, str] = {}
    for group in groups:
        with ExitStack() as children:
            started = {model: children.enter_context(_exporting(model)) for model in group}
            deadline = time.monotonic() + EXPORT_SECONDS
            outcomes |= {model: _outcome(model, process, deadline) for model, process in started.items()}
    return outcomes


def _exporting(model: Path) -> "AbstractContextManager[Popen[bytes]]":
    say(f"converting {model} to 8 bits, once: it answers several times as fast")
    export = _export_of(model)
    shutil.rmtree(export, ignore_errors=True)  # of an earlier model
    command = module_command("phi3flow", "export", model, "--format", "openvino", "--int8", "--out", export)
    return child(command, _log_of(model))


def _outcome(model: Path, process: "Popen[bytes]", deadline: float) -> str:
    try:
        code = process.wait(deadline - time.monotonic())
    except TimeoutExpired:
        return f"the export took longer than {EXPORT_SECONDS:.0f} s"
    if code:
        return f"the export failed, its log is {_log_of(model)}"
    _log_of(model).unlink()
    return ""


def _log_of(model: Path) -> Path:
    return model.with_name(f"{_export_of(model).name}.log")


def _size(model: Path) -> int:
    """Bytes."""
    return sum(file.stat().st_size for file in model.iterdir())
