"""Which engine serves a model folder, and what each needs to be there."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.scoring.http.service import LoadedModel
from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from deploy.scoring.engine import Engine

OPENVINO_FILE = "openvino_model.xml"
# Parameters. Below, a second thread gains nothing, and costs 30-fold where another process wants its core.
SMALL_MODEL = 20_000_000


def load(folder: Path, on_failure: Callable[[], None], engine: str = "auto") -> LoadedModel:
    """Load a model folder; takes seconds. `engine` is auto, transformers or openvino.

    `on_failure` is called, from another thread, when the engine dies. Raises BadInput.
    """
    from transformers.utils import logging

    from training.models.loading import load_tokenizer

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its warnings say of long prompts what ContextOverflow says
    make = _openvino if _resolved(folder, engine) == "openvino" else _transformers
    tokenizer = load_tokenizer(str(folder))
    return LoadedModel(tokenizer, make(folder, tokenizer, on_failure))


def _resolved(folder: Path, engine: str) -> str:
    converted = (folder / OPENVINO_FILE).is_file()
    name = ("openvino" if converted else "transformers") if engine == "auto" else engine
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
