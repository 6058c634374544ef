"""Loading a model folder into the engine that serves it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.scoring.engines.onnx_engine import MODEL_FILE as ONNX_FILE
from deploy.scoring.engines.openvino_worker import MODEL_FILE as OPENVINO_FILE
from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from deploy.scoring.engine import Engine

# Parameters. A second thread gains a smaller model nothing, and makes it 30 times slower on a busy core.
SMALL_MODEL = 20_000_000
BYTES_PER_PARAMETER = 4
# By engine: the file that tells an export, and the package that runs it.
EXPORTS = {"openvino": OPENVINO_FILE, "onnx": ONNX_FILE}
PACKAGES = {"openvino": "openvino_genai", "onnx": "onnxruntime_genai"}


def load(
    folder: Path, on_failure: Callable[[], None], engine: str = "auto", cache_bytes: int | None = None
) -> "Engine":
    """Load a model folder; takes seconds. `engine` is auto, transformers, openvino or onnx.

    `cache_bytes` bounds the memory for keys and values. `on_failure` is called, from another thread, when the
    engine dies. Raises BadInput.
    """
    from transformers.utils import logging

    from training.models.loading import load_tokenizer

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it warns about long prompts, for which we raise ContextOverflow
    make = {"openvino": _openvino, "onnx": _onnx, "transformers": _transformers}[_engine_for(folder, engine)]
    return make(folder, load_tokenizer(str(folder)), on_failure, cache_bytes)


def _engine_for(folder: Path, engine: str) -> str:
    """The engine's name. Raises BadInput if the folder or an installed package does not fit."""
    exported = next((name for name, file in EXPORTS.items() if (folder / file).is_file()), None)
    name = (exported or "transformers") if engine == "auto" else engine
    if name in EXPORTS and name != exported:
        raise BadInput(
            f"{folder}: no {EXPORTS[name]}", hint=f"phi3flow export {folder} --format {name} --out DIR"
        )
    if name in EXPORTS and not find_spec(PACKAGES[name]):
        raise BadInput(f"{PACKAGES[name]} is not installed", hint=f"pip install 'phi3flow[{name}]'")
    if name == "transformers" and exported:
        kind = {"openvino": "an OpenVINO", "onnx": "an ONNX"}[exported]
        raise BadInput(
            f"{folder}: is {kind} export",
            hint="serve the folder that it was exported from, or omit --engine",
        )
    return name


def is_small(folder: Path) -> bool:
    """Whether a model folder holds fewer than SMALL_MODEL parameters, by what they take in fp32."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return stored < BYTES_PER_PARAMETER * SMALL_MODEL


def weights_bytes(folder: Path | str) -> int:
    """Size of an exported model's weights."""
    return (Path(folder) / OPENVINO_FILE).with_suffix(".bin").stat().st_size


def _transformers(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    on_failure: Callable[[], None],
    cache_bytes: int | None,
) -> "Engine":
    """In fp32 on a CPU, in bf16 on a GPU; a small model in fp32 there too, as its probes were recorded."""
    import torch

    from deploy.scoring.engines.gpu import has_usable_gpu, moved_to_gpu
    from deploy.scoring.engines.transformers_engine import TransformersEngine
    from training.models.loading import load_model

    if has_usable_gpu(folder):
        weights = "fp32" if is_small(folder) else "bf16"
        model = moved_to_gpu(load_model(str(folder), weights=weights), folder)
    else:
        model = load_model(str(folder))
        if model.num_parameters() < SMALL_MODEL:
            torch.set_num_threads(1)
    return TransformersEngine(model, tokenizer, cache_bytes=cache_bytes, on_failure=on_failure)


def _openvino(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    on_failure: Callable[[], None],
    cache_bytes: int | None,
) -> "Engine":
    """fp32 arithmetic unless the manifest says that the weights are quantised."""
    from deploy.scoring.engines.openvino_engine import OpenVinoEngine
    from phi3flow.core.lineage import read_manifest

    exact = (read_manifest(folder) or {}).get("mode", "fp32") == "fp32"
    threads = 1 if weights_bytes(folder) < SMALL_MODEL else None
    return OpenVinoEngine(
        folder, tokenizer, exact=exact, threads=threads, cache_bytes=cache_bytes, on_failure=on_failure
    )


def _onnx(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    on_failure: Callable[[], None],
    cache_bytes: int | None,
) -> "Engine":
    """One answer at a time, so the cache is that of one context, whatever `cache_bytes` says."""
    from deploy.scoring.engines.onnx_engine import OnnxEngine

    return OnnxEngine(folder, tokenizer, on_failure=on_failure)
