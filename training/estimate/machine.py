"""The machine that a run gets."""

from typing import NamedTuple

from phi3flow.core.errors import BadInput
from training.estimate.free_space import free_memory
from training.recipes.recipe import Recipe
from training.recipes.training_arguments import has_bf16, has_gpu, has_liger, old_driver


class Machine(NamedTuple):
    """Whether it has a CUDA GPU and bf16 instructions; the free bytes of its memory, or of the GPU's.

    `liger`: whether the package liger-kernel is installed.
    """

    gpu: bool
    bf16: bool
    free: int
    liger: bool = False

    @property
    def memory(self) -> str:
        return "GPU memory" if self.gpu else "memory"

    def computes_in_bf16(self, recipe: Recipe) -> bool:
        return self.bf16 if recipe.precision == "auto" else recipe.precision == "bf16"


def this_machine() -> Machine:
    """Raises BadInput for a GPU that torch cannot use: the CPU would take days, and nobody asked for it."""
    gpu = has_gpu()
    if not gpu and (said := old_driver()):
        raise BadInput(
            f"torch cannot use the GPU: {said}",
            hint="update the driver, or train on the CPU: CUDA_VISIBLE_DEVICES= before the command",
        )
    return Machine(gpu, has_bf16(), free_memory(gpu=gpu), has_liger())
