"""What a GPU must have to serve a model, and how it is told to work."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.errors import BadInput
from training.estimate.free_space import size
from training.recipes.training_arguments import has_bf16, has_gpu, old_driver

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_usable_gpu(folder: Path) -> bool:
    """Whether to serve on the GPU. Raises BadInput for one that is there but cannot be used."""
    import torch

    if said := old_driver():
        raise BadInput(
            f"torch cannot use the GPU: {said}",
            hint=f"update the driver, or serve on the CPU: {on_cpu(folder)}",
        )
    if not has_gpu():
        return False
    require_bf16(has_bf16(), torch.cuda.get_device_name(), torch.cuda.get_device_capability(), folder)
    return True


def require_bf16(has_bf16: bool, name: str, capability: tuple[int, int], folder: Path) -> None:
    if not has_bf16:
        raise BadInput(
            f"{name} (compute capability {capability[0]}.{capability[1]}) has no bf16, in which models are "
            "served on a GPU: 8.0 or newer has it",
            hint=f"serve on the CPU: {on_cpu(folder)}",
        )


def require_room(weights: int, free: int, total: int, folder: Path) -> None:
    """Raises BadInput if the weights alone do not fit."""
    if weights > free:
        raise BadInput(
            f"{folder}: its weights take {size(weights)}, and {size(free)} of the GPU's {size(total)} "
            "are free",
            hint=f"nvidia-smi shows what uses the rest; on the CPU: {on_cpu(folder)}",
        )


def on_cpu(folder: Path) -> str:
    return f"CUDA_VISIBLE_DEVICES= phi3flow serve {shlex.quote(str(folder))}"


def moved_to_gpu(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The model on the GPU. cuDNN's attention is off: it makes a new plan for each length of keys."""
    import torch

    free, total = torch.cuda.mem_get_info()
    require_room(model.get_memory_footprint(), free, total, folder)
    torch.backends.cuda.enable_cudnn_sdp(False)
    return model.to("cuda")
