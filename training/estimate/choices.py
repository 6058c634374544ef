"""What a recipe leaves to the machine with "auto": attention, kernels, gradient checkpointing."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.core.errors import BadInput
from training.estimate.footprint import ModelSize, largest_batch, memory_need
from training.estimate.free_space import size
from training.estimate.machine import Machine
from training.ranks import several, world_size
from training.recipes.recipe import Recipe
from training.recipes.training_arguments import LIGER, has_varlen

if TYPE_CHECKING:
    from datasets import Dataset

# On an H200 compiling took 16 to 75 s and saved a quarter to a third of a second a batch (bench/LOG.md).
COMPILING_PAYS = 300  # batches
INSTALL_LIGER = f"pip install 'liger-kernel>={LIGER}'"
HEADROOM = 1.1  # the estimate of a step may be a tenth too low


class Settled(NamedTuple):
    """The recipe without "auto", and a reason for each choice that is not the plain one."""

    recipe: Recipe
    why: list[str]


def settled(recipe: Recipe, model: ModelSize, rows: "Dataset", machine: Machine) -> Settled:
    """Choose for `machine` what `recipe` does not say; the plain choice gets no reason.

    Raises BadInput for kernels that it asks for and that are not there.
    """
    _require_liger(recipe, machine)
    why: list[str] = []

    def choose(field: str, auto: tuple[Any, str]) -> None:
        nonlocal recipe
        if getattr(recipe, field) == "auto":
            value, reason = auto
            recipe = replace(recipe, **{field: value})
            why.extend([reason] if reason else [])

    if recipe.sharding:
        why.append(
            f"weights, gradients and optimiser split over {world_size()} processes ({recipe.sharding})"
        )
    choose("attention", _attention(recipe, model, machine))
    batches = recipe.optimiser_steps(len(rows)) * recipe.gradient_accumulation
    choose("compile", _compile(recipe, batches, machine))
    choose("liger", _liger(recipe, machine))
    choose("gradient_checkpointing", _checkpointing(recipe, model, rows, machine))
    return Settled(recipe, why)


def _attention(recipe: Recipe, model: ModelSize, machine: Machine) -> tuple[str, str]:
    """varlen's kernel takes 16-bit numbers only, has no dropout, and needs a GPU that has bf16."""
    kernel = machine.gpu and machine.bf16 and machine.computes_in_bf16(recipe)
    if not recipe.packing or not kernel or getattr(model.config, "attention_dropout", 0.0) > 0:
        return "sdpa", ""
    if not has_varlen(grouped=model.config.num_key_value_heads != model.config.num_attention_heads):
        return "sdpa", "sdpa attention (this torch has no kernel for packed rows)"
    return "varlen", "varlen attention (packed rows on a GPU)"


def _compile(recipe: Recipe, count: int, machine: Machine) -> tuple[bool, str]:
    """Measured for packed rows on one GPU; 4-bit layers and several processes were not."""
    if recipe.attention != "varlen" or _unmeasured(recipe, machine):
        return False, ""
    if count < COMPILING_PAYS:
        return False, f"layers not compiled ({count:,} batches; it pays from {COMPILING_PAYS:,})"
    return True, f"layers compiled ({count:,} batches)"


def _liger(recipe: Recipe, machine: Machine) -> tuple[bool, str]:
    """For runs that are too short to compile; measured, as that was, for packed rows on one GPU."""
    if recipe.attention != "varlen" or recipe.compile is True or _unmeasured(recipe, machine):
        return False, ""
    if not machine.liger:
        return False, f"plain layers (Liger's kernels are faster: {INSTALL_LIGER})"
    return True, "Liger's kernels for rotary embedding, norms and SwiGLU"


def _unmeasured(recipe: Recipe, machine: Machine) -> bool:
    four_bit = recipe.lora is not None and recipe.lora.four_bit
    return not machine.gpu or four_bit or several()


def _require_liger(recipe: Recipe, machine: Machine) -> None:
    if recipe.liger is True and not machine.gpu:
        raise BadInput("liger = true: the kernels need a CUDA GPU", hint="leave liger out of the recipe")
    if recipe.liger is True and not machine.liger:
        raise BadInput(f"liger = true: liger-kernel {LIGER} or newer is not installed", hint=INSTALL_LIGER)


def _checkpointing(recipe: Recipe, model: ModelSize, rows: "Dataset", machine: Machine) -> tuple[bool, str]:
    largest = largest_batch(recipe, rows)
    kept = memory_need(replace(recipe, gradient_checkpointing=False), model, largest, machine)
    room = f"{size(kept.total)} of {size(kept.free)} {kept.what}"
    if kept.total * HEADROOM > kept.free:
        return True, f"activations recomputed (kept, the run would need {room})"
    return False, f"activations kept ({room})" if machine.gpu else ""
