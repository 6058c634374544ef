"""Which engine serves a model folder, and what each needs to be there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.scoring.http.service import LoadedModel
from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from deploy.scoring.engine import Engine

ENGINES = ("auto", "transformers", "openvino", "vllm")
OPENVINO_FILE = "openvino_model.xml"
# Parameters. Below, a second thread gains nothing, and costs 30-fold where another process wants its core.
SMALL_MODEL = 20_000_000


@dataclass(frozen=True)
class EngineChoice:
    """One of ENGINES; `upstream` is the base URL of a vLLM server, such as http://127.0.0.1:8000/v1."""

    name: str = "auto"
    upstream: str = ""
    upstream_key: str = field(default="", repr=False)


def load(folder: Path, choice: EngineChoice, on_failure: Callable[[], None]) -> LoadedModel:
    """Takes seconds; `on_failure` is called, from another thread, when the engine dies. Raises BadInput."""
    from transformers.utils import logging

    from training.models.loading import load_tokenizer

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its warnings say of long prompts what ContextOverflow says
    name = _resolved(folder, choice)
    tokenizer = load_tokenizer(str(folder))
    if name == "vllm":
        from deploy.scoring.engines.vllm_engine import VllmEngine

        upstream = VllmEngine(choice.upstream, choice.upstream_key, folder, tokenizer, on_failure=on_failure)
        return LoadedModel(tokenizer, upstream)
    make = _openvino if name == "openvino" else _transformers
    return LoadedModel(tokenizer, make(folder, tokenizer, on_failure))


def _resolved(folder: Path, choice: EngineChoice) -> str:
    converted = (folder / OPENVINO_FILE).is_file()
    name = ("openvino" if converted else "transformers") if choice.name == "auto" else choice.name
    if name == "vllm" and not choice.upstream:
        raise BadInput("--engine vllm needs --upstream URL", hint="vllm serve MODEL, then --upstream URL/v1")
    if name == "openvino" and not converted:
        raise BadInput(
            f"{folder}: no {OPENVINO_FILE}", hint=f"phi3flow export {folder} --format openvino --out DIR"
        )
    if name == "openvino" and not find_spec("openvino_genai"):
        raise BadInput("openvino_genai is not installed", hint="pip install 'phi3flow[openvino]'")
    if name == "transformers" and converted:
        raise BadInput(
            f"{folder}: was converted for openvino", hint="give the folder that it was exported from"
        )
    return name


def weights_bytes(folder: Path | str) -> int:
    """Of an exported model."""
    return (Path(folder) / OPENVINO_FILE).with_suffix(".bin").stat().st_size


def _transformers(
    folder: Path, tokenizer: "PreTrainedTokenizerBase", on_failure: Callable[[], None]
) -> "Engine":
    import torch

    from deploy.scoring.engines.transformers_engine import TransformersEngine
    from training.models.loading import load_model

    model = load_model(str(folder))
    if model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    return TransformersEngine(model, tokenizer, on_failure=on_failure)


def _openvino(folder: Path, tokenizer: "PreTrainedTokenizerBase", on_failure: Callable[[], None]) -> "Engine":
    """Quantised weights need no fp32 arithmetic around them; whatever is not said to be is exact."""
    from deploy.scoring.engines.openvino_engine import OpenVinoEngine
    from phi3flow.core.lineage import read_manifest

    exact = (read_manifest(folder) or {}).get("mode", "fp32") == "fp32"
    threads = 1 if weights_bytes(folder) < SMALL_MODEL else None
    return OpenVinoEngine(folder, tokenizer, exact=exact, threads=threads, on_failure=on_failure)
