"""The machine that a run gets."""

from typing import NamedTuple

from training.estimate.free_space import free_memory
from training.recipes.recipe import Recipe
from training.recipes.training_arguments import has_bf16, has_gpu


class Machine(NamedTuple):
    """Whether it has a CUDA GPU and bf16 instructions; the free bytes of its memory, or of the GPU's."""

    gpu: bool
    bf16: bool
    free: int

    @property
    def memory(self) -> str:
        return "GPU memory" if self.gpu else "memory"

    def computes_in_bf16(self, recipe: Recipe) -> bool:
        return self.bf16 if recipe.precision == "auto" else recipe.precision == "bf16"


def this_machine() -> Machine:
    gpu = has_gpu()
    return Machine(gpu, has_bf16(), free_memory(gpu=gpu))
