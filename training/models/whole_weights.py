"""Whether a model's files held every tensor of the model, and nothing else.

transformers fills a tensor that is missing or has another shape with random numbers, and only logs a warning.
"""

from collections.abc import Collection, Mapping
from typing import Any

from phi3flow.core.errors import BadInput

SHOWN = 3


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
            f"{model}: the weights do not fit config.json; tensors " + "; ".join(problems),
            hint="copy or download all files of the model again",
        )


def _listed(names: Collection[str]) -> str:
    shown = [name.encode("unicode_escape").decode() for name in sorted(names)[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > SHOWN else "")
