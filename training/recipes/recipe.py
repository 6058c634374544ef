"""A recipe: what a training run does, as a TOML file. Every field is documented and checked."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.validation import read_toml, validated

Count = Annotated[int, Field(strict=True, gt=0)]
Amount = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Choice = Literal["auto", True, False]
CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=CLOSED)
class Scratch:
    """The shape of a Phi-3 with random weights, and of the tokenizer trained on the run's own data."""

    vocab_size: Count = Field(description="largest size of the tokenizer's vocabulary")
    hidden_size: Count = Field(description="width of the residual stream")
    intermediate_size: Count = Field(description="width of the feed-forward layers")
    layers: Count = Field(description="number of decoder layers")
    heads: Count = Field(description="number of attention heads; must divide hidden_size")
    context: Count = Field(default=1024, description="longest sequence in tokens")
    dropout: Share = Field(default=0.0, description="dropout on the residual branches")


@dataclass(frozen=True, config=CLOSED)
class Lora:
    """Low-rank adapters, trained beside frozen weights and merged into the saved model."""

    rank: Count = Field(default=16, description="rank of each adapter")
    alpha: Count = Field(default=32, description="an adapter's output is multiplied by alpha / rank")
    rank_stabilised: Flag = Field(
        default=False, description="multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)"
    )
    dora: Flag = Field(
        default=False,
        description="learn each weight's magnitude beside its direction (DoRA, arXiv 2402.09353)",
    )
    dropout: Share = Field(default=0.05, description="dropout before each adapter; dpo and kto use none")
    targets: list[str] = Field(
        default_factory=list,
        description="linear layers that get an adapter; empty: all but the output layer",
    )
    four_bit: Flag = Field(
        default=False, description="hold the frozen weights in 4-bit NF4 (QLoRA); needs a CUDA GPU"
    )


@dataclass(frozen=True, config=CLOSED)
class Recipe:
    """One training run: it fine-tunes `model` (or `--model`), or trains `[scratch]` from random weights."""

    batch_size: Count = Field(description="chats (packed rows with packing) per device and step")
    learning_rate: Amount = Field(description="peak learning rate")
    method: Literal["sft", "dpo", "kto"] = Field(
        default="sft",
        description="sft (learns the answers of chats), dpo (which of two answers is better) or kto (answers "
        "with a thumb up or down)",
    )
    beta: Amount = Field(
        default=0.1, description="dpo and kto: how closely the model stays to its start; higher is closer"
    )
    steps: Count | None = Field(default=None, description="optimiser steps; give steps or epochs")
    epochs: Amount | None = Field(default=None, description="passes over the training data")
    model: str | None = Field(default=None, description="hub id or folder of the model to fine-tune")
    revision: str | None = Field(default=None, description="commit of the hub model, for the same weights")
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="learning rate over time: cosine, linear or constant"
    )
    warmup: Share = Field(default=0.05, description="share of the steps in which the learning rate rises")
    weight_decay: Number = Field(default=0.05, description="AdamW's weight decay")
    beta2: Share = Field(default=0.95, description="AdamW's decay of the second moment")
    max_length: Count = Field(default=512, description="longest example in tokens")
    long_chats: Literal["window", "truncate", "drop", "refuse"] | None = Field(
        default=None,
        description="chats longer than max_length: window (split at turns), truncate, drop or refuse "
        "(default: window; with [scratch], dpo and kto refuse)",
    )
    system: Literal["fold", "refuse"] = Field(
        default="fold",
        description="system messages that the chat template leaves out: fold (into the first user turn) or "
        "refuse, in training and serving; dpo and kto keep the start's rule",
    )
    packing: Flag = Field(
        default=False, description="put several chats in a row of max_length; they do not see each other"
    )
    attention: Literal["auto", "sdpa", "varlen", "eager", "flash_attention_2"] = Field(
        default="auto",
        description="implementation: sdpa, varlen, eager, flash_attention_2, or auto (varlen for packed rows "
        "on a GPU, else sdpa)",
    )
    compile: Choice = Field(
        default="auto",
        description="compile the decoder layers: true, false, or auto (on a GPU with varlen attention, if "
        "the run is long enough to pay for it)",
    )
    liger: Choice = Field(
        default="auto",
        description="Liger's kernels for rotary embedding, norms and SwiGLU: true, false, or auto (on a GPU "
        "with varlen attention, if liger-kernel is installed and the run is too short to compile)",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="arithmetic: fp32, bf16, or auto (bf16 where the hardware has it)"
    )
    weights: Literal["fp32", "bf16"] = Field(
        default="fp32", description="type of the stored weights: fp32, or bf16 with [lora] only"
    )
    gradient_accumulation: Count = Field(default=1, description="batches per optimiser step")
    gradient_checkpointing: Choice = Field(
        default="auto",
        description="recompute activations in the backward pass to save memory: true, false, or auto "
        "(if they would not fit)",
    )
    sharding: Literal["fsdp2"] | None = Field(
        default=None,
        description="split weights, gradients and optimiser state over the processes of torchrun: fsdp2 "
        "(default: each process holds all of them)",
    )
    eval_every: Count = Field(default=100, description="steps between validations, each with a checkpoint")
    patience: Count | None = Field(
        default=None, description="stop after this many validations without improvement"
    )
    scratch: Scratch | None = Field(default=None, description="train a model of this shape from scratch")
    lora: Lora | None = Field(default=None, description="train adapters instead of all weights")

    @property
    def long_chats_rule(self) -> Literal["window", "truncate", "drop", "refuse"]:
        return self.long_chats or ("refuse" if self.scratch or self.learns_preferences else "window")

    @property
    def learns_preferences(self) -> bool:
        return self.method != "sft"

    def optimiser_steps(self, rows: int) -> int:
        """Steps over so many rows (packed ones with packing) on one device, as Transformers counts them."""
        if self.steps is not None:
            return self.steps
        each_pass = ceil(ceil(rows / self.batch_size) / self.gradient_accumulation)
        return ceil((self.epochs or 0) * each_pass)


# Fields that must fit together, with what is wrong if they do not.
RULES: Mapping[str, Callable[[Any], bool]] = {
    "scratch.heads, scratch.hidden_size: {0.scratch.heads} does not divide {0.scratch.hidden_size}": (
        lambda recipe: recipe.scratch is None or recipe.scratch.hidden_size % recipe.scratch.heads == 0
    ),
    "max_length, scratch.context: no chat can be longer than the context": (
        lambda recipe: recipe.scratch is None or recipe.max_length <= recipe.scratch.context
    ),
    "steps, epochs: give one of them": lambda recipe: (recipe.steps is None) != (recipe.epochs is None),
    "model, scratch: a run starts from one of them": lambda recipe: not (recipe.model and recipe.scratch),
    "revision, model: a revision needs the hub model it belongs to": (
        lambda recipe: recipe.model is not None or recipe.revision is None
    ),
    "lora, scratch: random weights need full training": lambda recipe: not (recipe.lora and recipe.scratch),
    "sharding, lora: fsdp2 splits what full training needs; adapters train without it": (
        lambda recipe: not (recipe.sharding and recipe.lora)
    ),
    "sharding, compile: fsdp2 gathers the layers as they are written; leave compile out": (
        lambda recipe: not (recipe.sharding and recipe.compile is True)
    ),
    "compile, liger: a compiled layer has such kernels already; give one of them": (
        lambda recipe: not (recipe.compile is True and recipe.liger is True)
    ),
    "method, lora: {0.method} needs [lora]; without its adapters the model is what it is held to": (
        lambda recipe: recipe.lora is not None or not recipe.learns_preferences
    ),
    "method, packing: {0.method} compares whole answers; leave packing out": (
        lambda recipe: not (recipe.learns_preferences and recipe.packing)
    ),
    "method, liger: {0.method} runs the layers as they are written; leave liger out": (
        lambda recipe: not (recipe.learns_preferences and recipe.liger is True)
    ),
    "method, compile: {0.method} runs the layers as they are written; leave compile out": (
        lambda recipe: not (recipe.learns_preferences and recipe.compile is True)
    ),
    "method, long_chats: an answer to compare cannot be cut; use refuse or drop": (
        lambda recipe: not recipe.learns_preferences or recipe.long_chats_rule in {"refuse", "drop"}
    ),
    "method, batch_size: kto measures an answer by the others of its batch; give 2 or more": (
        lambda recipe: recipe.method != "kto" or recipe.batch_size > 1
    ),
    "weights, lora: bf16 would round away the updates of full fine-tuning; use fp32 or [lora]": (
        lambda recipe: recipe.weights == "fp32" or recipe.lora is not None
    ),
}


def recipe_names() -> list[str]:
    folder = files("training.recipes")
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name_or_file: str, method: str | None = None) -> Recipe:
    """Read a shipped recipe by name or a file by path; `method` replaces the recipe's own.

    Raises BadInput with every problem found.
    """
    path = Path(name_or_file)
    if name_or_file in recipe_names():
        path = Path(str(files("training.recipes") / f"{name_or_file}.toml"))
    elif path.suffix != ".toml" or not path.is_file():
        raise BadInput(f"no recipe '{name_or_file}'", hint=nearest(name_or_file, recipe_names()))
    table = read_toml(path) | ({"method": method} if method else {})
    return validated(Recipe, table, name_or_file, rules=RULES)
