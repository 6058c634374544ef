"""ONNX Runtime GenAI: for `onnxruntime-genai` programs and Foundry Local."""

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from deploy.export.exporter import Judged, Source, Stored, require_packages
from deploy.export.model_files import CONFIGURATION, TOKENIZER, copied, copy_files
from deploy.export.turns import turns_of
from deploy.scoring.load import ONNX_FILE, load
from deploy.scoring.loopback import on_loopback
from phi3flow.core.child_process import last_line, module_command, run_child
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.phi3_contract import Endpoint

PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai")
BUILDER = "onnxruntime_genai.models.builder"
FOUNDRY_LOCAL = "inference_model.json"  # the file by which Foundry Local finds a model in its cache
CONTENT = "{Content}"
SECONDS = 4 * 3600.0


class Onnx:
    """GenAI's model builder, for the CPU; the tokenizer's and the model's own files beside what it writes."""

    name = "onnx"
    weights: Mapping[str, Judged] = {"fp32": Judged.BY_ANSWERS, "int4": Judged.BY_ROWS}

    def require(self, model: Path) -> None:
        require_packages(PACKAGES, "onnx")
        copied(model, (*TOKENIZER, *CONFIGURATION))

    def convert(self, source: Source, work: Path, weights: str) -> Stored:
        _build(source.folder, work, weights)
        copy_files(source.folder, work, (*TOKENIZER, *CONFIGURATION))
        _for_foundry_local(source, work, weights)
        return Stored(weights)

    def owns(self, folder: Path) -> bool:
        return (folder / ONNX_FILE).is_file()

    def serving(self, folder: Path) -> AbstractContextManager[Endpoint]:
        return on_loopback(load(folder, lambda: None), folder.name)

    def next_step(self, folder: Path) -> str:
        return f"phi3flow serve {folder}"


def _build(model: Path, work: Path, weights: str) -> None:
    """In a process of its own: it prints, and its memory ends with it."""
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        log = Path(folder) / "builder.log"
        arguments = ("-i", model, "-o", work, "-p", weights, "-e", "cpu", "-c", folder)
        offline = ("--extra_options", "hf_token=false")
        code = run_child(module_command(BUILDER, *arguments, *offline), log, seconds=SECONDS)
        if code:
            raise Phi3flowError(
                f"{model}: the model builder of onnxruntime-genai failed: {last_line(log)}",
                hint="phi3flow export --format openvino or gguf, or serve the model folder itself",
            )


def _for_foundry_local(source: Source, work: Path, weights: str) -> None:
    turns = turns_of(source.tokenizer)
    prompt = turns.rendered([{"role": "user", "content": CONTENT}])
    template = {role: CONTENT.join(around) for role, around in turns.around.items()} | {"prompt": prompt}
    name = f"{source.folder.resolve().name}-{weights}"
    write_json(work / FOUNDRY_LOCAL, {"Name": name, "PromptTemplate": template})
