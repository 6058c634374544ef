"""How far training moved the weights, measured without a second copy of the model in memory."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

Read = Callable[[str], "torch.Tensor"]


class WeightChange(NamedTuple):
    """`relative`: |after - before| / |before|, all weights as one vector; `tensors`: the share that moved."""

    relative: float
    tensors: float


@contextmanager
def stored_weights(folder: Path) -> Iterator[Mapping[str, Read]]:
    """The tensors of a folder's safetensors files by name, each read when it is asked for."""
    from safetensors import safe_open

    with ExitStack() as stack:
        found: dict[str, Read] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            found |= dict.fromkeys(file.keys(), file.get_tensor)
        yield found


def weight_change(before: Mapping[str, Read], after: Mapping[str, "torch.Tensor"]) -> WeightChange | None:
    """Compare tensor by tensor, in fp32, those of equal name; None where no name is known to both."""
    squared_norm = squared_change = 0.0
    changed, names = 0, before.keys() & after.keys()
    for name in sorted(names):
        now = after[name]
        then = before[name](name).to(now)  # what a model held in bf16 starts from is rounded already
        difference = _squared_norm(now.float() - then.float())
        squared_change += difference
        squared_norm += _squared_norm(then)
        changed += difference > 0
    if not names:
        return None
    relative = math.sqrt(squared_change / squared_norm) if squared_norm else math.inf
    return WeightChange(relative, changed / len(names))


def _squared_norm(tensor: "torch.Tensor") -> float:
    """Summed in double: in fp32 a small change of a large tensor would be lost."""
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
