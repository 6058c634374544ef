"""Whether a model's files held every tensor of the model, nothing else, and numbers.

transformers fills a tensor that is missing or has another shape with random numbers, and only logs a warning.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.core.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 3
HINT = "copy or download all files of the model again"


def require_whole(model: str, info: Mapping[str, Any]) -> None:
    """Raise BadInput that names the tensors; `info` is what `output_loading_info=True` returns."""
    misshapen = {
        f"{name} {tuple(stored)} instead of {tuple(wanted)}"
        for name, stored, wanted in info["mismatched_keys"]
    }
    found = {
        "missing": info["missing_keys"],
        "unexpected": info["unexpected_keys"],
        "of another shape": misshapen,
    }
    problems = [f"{len(names)} {what}: {_listed(names)}" for what, names in found.items() if names]
    if problems:
        raise BadInput(
            f"{model}: the weights do not fit config.json; tensors " + "; ".join(problems), hint=HINT
        )


def require_numbers(model: str, loaded: "PreTrainedModel") -> None:
    """Raise BadInput for infinite or undefined weights, and for a head that should be tied and is not."""
    import torch

    broken = [
        name
        for name, weights in loaded.named_parameters()
        if weights.is_floating_point() and not torch.isfinite(weights.sum(dtype=torch.float32))
    ]
    if broken:
        raise BadInput(f"{model}: tensors with infinite or undefined numbers: {_listed(broken)}", hint=HINT)
    first, head = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    if getattr(loaded.config, "tie_word_embeddings", False) and not torch.equal(first.weight, head.weight):
        raise BadInput(
            f"{model}: lm_head.weight is not the embeddings', as tie_word_embeddings in config.json says",
            hint=HINT,
        )


def require_floats(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise BadInput for tensors of whole numbers in a folder whose config.json names no quantisation."""
    if config.get("quantization_config"):
        return
    whole = [name for file in folder.glob("*.safetensors") for name in _of_whole_numbers(file)]
    if whole:
        raise BadInput(f"{folder}: tensors that hold no floating-point numbers: {_listed(whole)}", hint=HINT)


def _of_whole_numbers(file: Path) -> Iterator[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            if not tensors.get_slice(name).get_dtype().startswith(("F", "BF")):
                yield name


def _listed(names: Collection[str]) -> str:
    shown = [name.encode("unicode_escape").decode() for name in sorted(names)[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > SHOWN else "")
