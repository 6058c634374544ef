"""The form of a model folder that this machine serves fastest: an int8 OpenVINO export, or the folder itself.

Without a GPU the export answers several times as fast. It is made once, checked against the model
(`deploy.export`), and kept beside it.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

from deploy.scoring.load import OPENVINO_FILE, is_small
from phi3flow.core.child_process import module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.lineage import read_manifest, sha256_of
from phi3flow.core.sides import SIDES
from training.recipes.training_arguments import has_gpu

EXPORT_SECONDS = 1800.0
EXPORTING = ("openvino", "openvino_genai", "nncf", "optimum")


def served_forms(run: Path) -> dict[str, Path]:
    """What to serve for base and tuned, by side: two exports or none, so that both have one arithmetic."""
    models = {side.name: run / side.name for side in SIDES}
    forms = {name: served_form(model) for name, model in models.items()}
    return forms if all(forms[name] != models[name] for name in models) else models


def served_form(model: Path) -> Path:
    """The folder to serve for `model`. Says why it is the model itself where an export would pay.

    A model below 20 million parameters is served as it is: an export takes longer than its answers.
    """
    if is_small(model) or has_gpu() or (model / OPENVINO_FILE).is_file():
        return model
    export = model.with_name(f"{model.name}-int8")
    if _is_export_of(export, model):
        return export
    if reason := _why_not(export) or _export(model, export):
        say(f"{model} is served by the slower transformers engine: {reason}")
        return model
    return export


def _why_not(export: Path) -> str:
    missing = next((name for name in EXPORTING if find_spec(name) is None), None)
    if missing:
        return f"{missing} is not installed (docs/endpoint.md)"
    if export.exists() and (read_manifest(export) or {}).get("format") != "openvino":
        return f"{export} is not an export of it"
    return ""


def _export(model: Path, export: Path) -> str:
    """Make the export in a process of its own, whose memory ends with it. Why it failed, or an empty text."""
    say(f"converting {model} to 8 bits, once: it answers several times as fast")
    shutil.rmtree(export, ignore_errors=True)  # of an earlier model
    log = export.with_name(f"{export.name}.log")
    command = module_command("phi3flow", "export", model, "--format", "openvino", "--int8", "--out", export)
    try:
        code = run_child(command, log, seconds=EXPORT_SECONDS)
    except TimeoutError:
        return f"the export took longer than {EXPORT_SECONDS:.0f} s"
    if code:
        return f"the export failed, its log is {log}"
    log.unlink()
    return ""


def _is_export_of(export: Path, model: Path) -> bool:
    inputs = (read_manifest(export) or {}).get("inputs", [])
    return bool(inputs) and inputs[0]["sha256"] == sha256_of(model)
