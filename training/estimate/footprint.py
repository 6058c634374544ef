"""What a run will take, told before anything is loaded: memory of its device, disk of its folder.

All is counted from the model's configuration, whose layers are built on the meta device: there a tensor has a
shape and no bytes. What was measured against it stands in `tests/training/test_estimate.py`.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.core.errors import Phi3flowError
from training.checkpoints import KEPT
from training.data.encode import IGNORED
from training.estimate.free_memory import free_memory
from training.estimate.model_size import ModelSize
from training.ranks import several, tell
from training.recipes.arguments import has_gpu, uses_bf16
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

FP32, BF16 = 4, 2
NF4 = (
    0.5 + FP32 / 64
)  # QLoRA (arXiv 2305.14314), section 3: 4 bits, and an fp32 constant for each block of 64
ADAMW = 2 * FP32  # two moments (arXiv 1412.6980)
CUDA_CONTEXT = 600_000_000  # what an empty CUDA process holds
WORKSPACE = 150_000_000  # on a CPU: libraries, threads and what the allocator cannot reuse, as measured
HEAD_TILE = 4096 * 32768  # tokens x vocabulary that TRL's fused head projects at a time on a GPU


class Batch(NamedTuple):
    """The largest batch: `tokens` with their padding, how many bear loss, and the longest row."""

    tokens: int
    bearing: int
    longest: int


@dataclass(frozen=True)
class Need:
    """Bytes that a run takes of one resource, by purpose, against what is free there."""

    what: str
    parts: Mapping[str, int]
    free: int
    hint: str

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def is_met(self) -> bool:
        return self.total <= self.free

    def __str__(self) -> str:
        return f"{size(self.total)} of {self.what}, {size(self.free)} free"

    def in_full(self) -> str:
        parts = ", ".join(f"{name} {size(count)}" for name, count in self.parts.items() if count)
        return f"about {size(self.total)} of {self.what} ({parts}), and {size(self.free)} are free"


def require_room(name: str, recipe: Recipe, model: ModelSize, rows: "Dataset", work: Path) -> None:
    """Say what the run `name` in the folder `work` needs; raises Phi3flowError where it is not there."""
    needs = (
        memory_need(recipe, model, largest_batch(recipe, rows)),
        disk_need(recipe, model, work),
    )
    tell(f"  {name} needs about {'; '.join(map(str, needs))}")
    unmet = [need for need in needs if not need.is_met]
    if unmet:
        raise Phi3flowError(
            f"{name} needs " + "; ".join(need.in_full() for need in unmet),
            hint="; ".join(need.hint for need in unmet),
        )


def largest_batch(recipe: Recipe, rows: "Dataset") -> Batch:
    """Rows are grouped by length, so the longest meet in one batch; packed ones stand end to end there."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    longest = sorted(range(len(lengths)), key=lambda row: lengths[row])[-recipe.batch_size :]
    tokens = [lengths[row] for row in longest]
    bearing = sum(label != IGNORED for row in longest for label in rows[row]["labels"])
    if recipe.packing:
        return Batch(sum(tokens), bearing, sum(tokens))
    return Batch(len(tokens) * max(tokens), bearing, max(tokens))


def memory_need(recipe: Recipe, model: ModelSize, batch: Batch) -> Need:
    """Peak memory of a training step, beyond what the process holds already."""
    gpu = has_gpu()
    arithmetic = BF16 if uses_bf16(recipe.precision) else FP32
    trained = model.adapters if recipe.lora else model.parameters
    copied = (model.linear if recipe.weights == "fp32" else 0) + model.adapters
    copied //= model.layers if recipe.gradient_checkpointing else 1
    parts = {
        "weights": _weights(recipe, model) + model.adapters * FP32,
        "gradients": trained * FP32 * (2 if several() else 1),  # and the buckets that are averaged
        "optimiser": trained * ADAMW,
        "bf16 copies": copied * BF16 if arithmetic == BF16 else 0,  # autograd keeps what autocast made
        "activations": _activations(recipe, model, batch, arithmetic),
        "logits": _logits(model, batch, arithmetic, gpu=gpu),
        "workspace": CUDA_CONTEXT if gpu else WORKSPACE,
    }
    return Need("GPU memory" if gpu else "memory", parts, free_memory(gpu=gpu), _repair(recipe, parts))


def disk_need(recipe: Recipe, model: ModelSize, work: Path) -> Need:
    """The kept checkpoints and the one being written, the model folder, and its copy in MLflow's store."""
    final = model.parameters * (FP32 if recipe.weights == "fp32" else BF16)
    parts = {
        "checkpoints": (KEPT + 1) * checkpoint_size(recipe, model),
        "model": final,
        "MLflow's copy": final,
    }
    free = free_disk(work) + sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    return Need("disk", parts, free, f"free space on the disk of {work.parent}, or give --out on another")


def checkpoint_size(recipe: Recipe, model: ModelSize) -> int:
    """What is trained, and its optimiser state."""
    return (model.adapters if recipe.lora else model.parameters) * (FP32 + ADAMW)


def free_disk(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be made."""
    return shutil.disk_usage(next(path for path in (folder, *folder.resolve().parents) if path.exists())).free


def size(count: int) -> str:
    """Bytes as people say them: 1 GB is 10^9 bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _weights(recipe: Recipe, model: ModelSize) -> int:
    held = FP32 if recipe.weights == "fp32" else BF16
    if recipe.lora and recipe.lora.four_bit:
        return int(model.linear * NF4) + (model.parameters - model.linear) * held
    return model.parameters * held


def _activations(recipe: Recipe, model: ModelSize, batch: Batch, arithmetic: int) -> int:
    """Bytes that the layers keep for the backward pass.

    The sum of arXiv 2205.05198, section 4, for Phi-3's layer: a norm keeps its input and the normed input in
    fp32; linear layers keep their inputs, attention its queries, keys, values and outputs, the gated
    feed-forward its gate, its other half and both products. With checkpointing a layer keeps its input, and
    one layer at a time all the rest.
    """
    h, kv, f = model.hidden, model.key_values, model.intermediate
    norms = 2 * 2 * FP32 * h
    attention = arithmetic * (h + (h + 2 * kv) + (h + kv) + 2 * h)
    feed_forward = arithmetic * (h + 2 * f + f + f)
    adapters = model.adapted_inputs * (1 + arithmetic) if recipe.lora else 0  # a dropout mask, what it leaves
    before_in_and_after_softmax = 2 * arithmetic + FP32
    eager = model.heads * batch.longest * before_in_and_after_softmax if recipe.attention == "eager" else 0
    layer = batch.tokens * (norms + attention + feed_forward + adapters + eager)
    boolean_and_added = 0 if recipe.attention == "flash_attention_2" else 1 + arithmetic
    mask = batch.tokens * batch.longest * boolean_and_added
    if recipe.gradient_checkpointing:
        return layer + model.layers * batch.tokens * h * FP32 + mask
    return model.layers * layer + mask


def _logits(model: ModelSize, batch: Batch, arithmetic: int, *, gpu: bool) -> int:
    """Logits in the run's arithmetic, as fp32 log-probabilities, and the gradients of both."""
    entries = min(batch.bearing * model.vocabulary, HEAD_TILE) if gpu else batch.bearing * model.vocabulary
    return entries * 2 * (arithmetic + FP32)


def _repair(recipe: Recipe, parts: Mapping[str, int]) -> str:
    """The field of the recipe that saves most."""
    passing = parts["activations"] + parts["logits"]
    if passing > sum(parts.values()) - passing:
        checkpointing = "" if recipe.gradient_checkpointing else " or set gradient_checkpointing = true"
        return f"lower batch_size (and raise gradient_accumulation){checkpointing} in the recipe"
    if recipe.scratch:
        return "give [scratch] fewer layers or a smaller hidden_size"
    if recipe.lora is None:
        return 'train adapters: [lora] and weights = "bf16" in the recipe'
    if recipe.weights == "fp32":
        return 'set weights = "bf16" in the recipe'
    return "start from a smaller model" if recipe.lora.four_bit else "set four_bit = true under [lora]"
