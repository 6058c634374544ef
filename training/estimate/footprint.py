"""Estimate the memory and disk that a run needs, before any weights are loaded.

The model is built from its configuration on the meta device, where a tensor has a shape but no bytes.
`tests/training/test_estimate.py` compares the estimate with measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.core.errors import BadInput, Phi3flowError, nearest
from training.checkpoints import KEPT
from training.data.encode import IGNORED
from training.estimate.free_space import free_disk, size
from training.estimate.machine import Machine, this_machine
from training.ranks import print0, several, world_size
from training.recipes.recipe import Lora, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

FP32, BF16 = 4, 2
NF4 = 0.5 + FP32 / 64  # QLoRA (arXiv 2305.14314), section 3: 4 bits, an fp32 constant per block of 64
ADAMW = 2 * FP32  # two moments (arXiv 1412.6980)
CUDA_CONTEXT = 600_000_000  # bytes of an empty CUDA process
WORKSPACE = 150_000_000  # measured on a CPU: libraries, threads, allocator overhead
HEAD_TILE = 4096 * 32768  # logits that TRL's fused head computes at a time on a GPU


class ModelSize(NamedTuple):
    """Counts of numbers, not bytes. A tied tensor counts once."""

    parameters: int
    linear: int  # parameters of linear layers, without the head
    adapters: int  # parameters that [lora] adds; 0 without it
    adapted_inputs: int  # summed input width of the adapters of one layer
    config: "PreTrainedConfig"


class Batch(NamedTuple):
    """The largest batch: its tokens with padding, how many count toward the loss, and its longest row."""

    tokens: int
    counted: int
    longest: int


@dataclass(frozen=True)
class Need:
    """Bytes that a run needs of one resource, by purpose, and the bytes that are free."""

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
    """Say what the run `name` in the folder `work` needs. Raises Phi3flowError if it is not available."""
    needs = (
        memory_need(recipe, model, largest_batch(recipe, rows), this_machine()),
        disk_need(recipe, model, work),
    )
    print0(f"  {name} needs about {'; '.join(map(str, needs))}")
    unmet = [need for need in needs if not need.is_met]
    if unmet:
        raise Phi3flowError(
            f"{name} needs " + "; ".join(need.in_full() for need in unmet),
            hint="; ".join(need.hint for need in unmet),
        )


def model_size(model: "PreTrainedModel", lora: Lora | None) -> ModelSize:
    """Count `model`, which may be on the meta device. Raises BadInput for lora.targets it does not have."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head
    }
    adapted = [linear[name] for name in _adapted(list(linear), lora)] if lora else []
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(module.weight.numel() for module in linear.values()),
        adapters=sum(lora.rank * (m.in_features + m.out_features) for m in adapted) if lora else 0,
        adapted_inputs=sum(module.in_features for module in adapted) // model.config.num_hidden_layers,
        config=model.config,
    )


def _adapted(layers: list[str], lora: Lora) -> list[str]:
    """The names of the linear layers that get an adapter. PEFT would check them after loading the weights.

    Its rule: a target is a layer's whole name or its last parts; no targets are all layers.
    """
    found = {
        target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in lora.targets
    }
    for target, names in found.items():
        if not names:
            raise BadInput(
                f"lora.targets: the model has no linear layer '{target}'",
                hint=nearest(target, {name.rpartition(".")[2] for name in layers}),
            )
    matching = {name for names in found.values() for name in names}
    return [name for name in layers if name in matching] if found else layers


def largest_batch(recipe: Recipe, rows: "Dataset") -> Batch:
    """Rows are grouped by length, so the longest ones share a batch; packed rows are concatenated.

    With dpo both answers of a pair are in it, which are two of `rows`.
    """
    lengths = [len(ids) for ids in rows["input_ids"]]
    size = recipe.batch_size * (2 if recipe.method == "dpo" else 1)
    longest = sorted(range(len(lengths)), key=lambda row: lengths[row])[-size:]
    tokens = [lengths[row] for row in longest]
    counted = sum(label != IGNORED for row in longest for label in rows[row]["labels"])
    if recipe.packing:
        return Batch(sum(tokens), counted, sum(tokens))
    return Batch(len(tokens) * max(tokens), counted, max(tokens))


def memory_need(recipe: Recipe, model: ModelSize, batch: Batch, machine: Machine) -> Need:
    """Peak memory of a training step, on top of what the process already holds.

    On a GPU freed memory is used again at once: gradients come as activations go, unless an earlier batch of
    the step has left some, and the logits are gone before the first layer is recomputed.
    """
    arithmetic = BF16 if machine.computes_in_bf16(recipe) else FP32
    checkpointed = recipe.gradient_checkpointing is True
    trained = model.adapters if recipe.lora else model.parameters
    copied = (model.linear if recipe.weights == "fp32" else 0) + model.adapters
    copied //= model.config.num_hidden_layers if checkpointed else 1
    ranks = world_size() if recipe.sharding else 1
    gradients = trained * FP32 // ranks * (2 if several() and ranks == 1 else 1)  # else ranks average copies
    logits = _logits(model, batch, arithmetic, gpu=machine.gpu)
    kept, recomputed = _activations(recipe, model, batch, arithmetic)
    if machine.gpu:
        recomputed = max(0, recomputed - logits)
        gradients = gradients if recipe.gradient_accumulation > 1 else max(0, gradients - kept - logits)
    parts = {
        "weights": _weights(recipe, model) // ranks + model.adapters * FP32,
        "gradients": gradients,
        "optimiser": trained * ADAMW // ranks,
        "bf16 copies": copied * BF16 if arithmetic == BF16 else 0,  # autograd keeps autocast's copies
        "activations": kept + recomputed,
        "logits": logits,
        "workspace": CUDA_CONTEXT if machine.gpu else WORKSPACE,
    }
    if recipe.sharding:
        parts |= _gathered(model, parts, arithmetic)
    return Need(machine.memory, parts, machine.free, _repair(recipe, parts))


def _gathered(model: ModelSize, parts: Mapping[str, int], arithmetic: int) -> dict[str, int]:
    """What sharding adds on each rank, in place of autocast's copies.

    FSDP2 gathers a layer while it computes another, and the head and the embeddings as units of their own;
    of one of these it has the gradients, and their sum in fp32 before they are split. Before and after the
    steps rank 0 answers the probes with the whole model.
    """
    layer = model.linear // model.config.num_hidden_layers
    ends = model.parameters - model.linear
    units = (2 * layer + ends) * arithmetic + max(layer, ends) * (arithmetic + FP32)
    split = sum(parts.values()) - parts["bf16 copies"] + units
    whole = model.parameters * FP32 + parts["workspace"]
    return {"bf16 copies": 0, "gathered layers": units, "whole model for the probes": max(0, whole - split)}


def disk_need(recipe: Recipe, model: ModelSize, work: Path) -> Need:
    """The kept checkpoints, the one being written, the model folder, and its copy in MLflow's store."""
    final = model.parameters * (FP32 if recipe.weights == "fp32" else BF16)
    parts = {
        "checkpoints": (KEPT + 1) * checkpoint_size(recipe, model),
        "model": final,
        "MLflow's copy": final,
    }
    free = free_disk(work) + sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    return Need("disk", parts, free, f"free space on the disk of {work.parent}, or give --out on another")


def checkpoint_size(recipe: Recipe, model: ModelSize) -> int:
    """Bytes of the trained weights and their optimiser state."""
    return (model.adapters if recipe.lora else model.parameters) * (FP32 + ADAMW)


def _weights(recipe: Recipe, model: ModelSize) -> int:
    held = FP32 if recipe.weights == "fp32" else BF16
    if recipe.lora and recipe.lora.four_bit:
        return int(model.linear * NF4) + (model.parameters - model.linear) * held
    return model.parameters * held


def _activations(recipe: Recipe, model: ModelSize, batch: Batch, arithmetic: int) -> tuple[int, int]:
    """Bytes that the layers keep for the backward pass, and bytes of the layer that is recomputed in it.

    With gradient checkpointing every layer keeps only its input, and one at a time is recomputed.
    """
    config = model.config
    stream = batch.tokens * config.hidden_size * (FP32 if recipe.weights == "fp32" else arithmetic)
    fused = recipe.compile is True or recipe.liger is True
    of_a_token = _of_a_fused_token if fused else _of_a_token
    layer = batch.tokens * of_a_token(recipe, model, batch, arithmetic)
    maskless = recipe.attention in {"varlen", "flash_attention_2"}
    boolean_and_added = 0 if maskless else 1 + arithmetic
    mask = batch.tokens * batch.longest * boolean_and_added
    if recipe.gradient_checkpointing is True:
        return config.num_hidden_layers * stream + mask, layer
    return config.num_hidden_layers * layer + mask, 0


def _of_a_token(recipe: Recipe, model: ModelSize, batch: Batch, arithmetic: int) -> int:
    """Bytes that a layer keeps of each token.

    The sum of arXiv 2205.05198, section 4, for Phi-3's layer: a norm keeps its input and output in fp32;
    linear layers keep their inputs; attention its queries, keys, values and outputs; the gated feed-forward
    its gate, its other half and both products.
    """
    config = model.config
    h, f, kv = config.hidden_size, config.intermediate_size, _key_width(config)
    norms = 2 * 2 * FP32 * h
    attention = arithmetic * (h + (h + 2 * kv) + (h + kv) + 2 * h)
    feed_forward = arithmetic * (h + 2 * f + f + f)
    before_in_and_after_softmax = 2 * arithmetic + FP32
    eager = config.num_attention_heads * batch.longest * before_in_and_after_softmax
    eager = eager if recipe.attention == "eager" else 0
    return int(norms + attention + feed_forward + _of_adapters(recipe, model, arithmetic) + eager)


def _of_a_fused_token(recipe: Recipe, model: ModelSize, batch: Batch, arithmetic: int) -> int:
    """The same after compilation, which computes a norm's output and the feed-forward's products again.

    So do Liger's kernels. A linear layer's input is kept for the gradient of its weights, so only if they are
    trained. Fitted to measurements on an H200 (tests/training/test_gpu_estimate.py).
    """
    config = model.config
    h, f, kv = config.hidden_size, config.intermediate_size, _key_width(config)
    norms = 2 * h * (FP32 if recipe.weights == "fp32" else arithmetic)
    attention = arithmetic * ((h + 2 * kv) + (h + kv) + h)
    inputs = 0 if recipe.lora else arithmetic * (2 * h + f)
    return int(norms + attention + inputs + arithmetic * 2 * f + _of_adapters(recipe, model, arithmetic))


def _key_width(config: "PreTrainedConfig") -> int:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(size * config.num_key_value_heads)


def _of_adapters(recipe: Recipe, model: ModelSize, arithmetic: int) -> int:
    """Dropout's mask and its output."""
    return model.adapted_inputs * (1 + arithmetic) if recipe.lora else 0


def _logits(model: ModelSize, batch: Batch, arithmetic: int, *, gpu: bool) -> int:
    """Bytes of the logits, of the fp32 log-probabilities, and of the gradients of both."""
    entries = batch.counted * model.config.vocab_size
    entries = min(entries, HEAD_TILE) if gpu else entries
    return entries * 2 * (arithmetic + FP32)


def _repair(recipe: Recipe, parts: Mapping[str, int]) -> str:
    """The change to the recipe that saves most."""
    of_the_batch = parts["activations"] + parts["logits"]
    if of_the_batch > sum(parts.values()) - of_the_batch:
        checkpointing = (
            "" if recipe.gradient_checkpointing is True else " or set gradient_checkpointing = true"
        )
        return f"lower batch_size (and raise gradient_accumulation){checkpointing} in the recipe"
    if recipe.scratch:
        return "give [scratch] fewer layers or a smaller hidden_size"
    if recipe.sharding:
        return "start more processes"
    if recipe.lora is None:
        return 'train adapters: [lora] and weights = "bf16" in the recipe'
    if recipe.weights == "fp32":
        return 'set weights = "bf16" in the recipe'
    return "start from a smaller model" if recipe.lora.four_bit else "set four_bit = true under [lora]"
