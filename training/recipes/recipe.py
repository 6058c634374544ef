"""What a training run does, as a TOML file: one frozen object, every field documented, all errors at once."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from phi3flow.core.errors import BadInput, nearest

ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULERS = ("cosine", "linear", "constant")
WEIGHTS = ("fp32", "bf16")
CHOICES = {"scheduler": SCHEDULERS, "precision": PRECISIONS, "weights": WEIGHTS, "attention": ATTENTIONS}


def _doc(text: str, **kwargs: Any) -> Any:
    return field(metadata={"help": text}, **kwargs)


@dataclass(frozen=True)
class Scratch:
    """The shape of a Phi-3 trained from random weights, with a tokenizer trained on its own data."""

    vocab_size: int = _doc("upper bound of the tokenizer's vocabulary")
    hidden_size: int = _doc("width of the residual stream")
    intermediate_size: int = _doc("width of the feed-forward layers")
    layers: int = _doc("number of decoder layers")
    heads: int = _doc("number of attention heads; must divide hidden_size")
    context: int = _doc("longest sequence in tokens", default=1024)
    dropout: float = _doc("dropout on the residual branches", default=0.0)

    def problems(self) -> list[str]:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "context")
        found = [f"scratch.{name}: must be above 0" for name in sizes if getattr(self, name) <= 0]
        if self.heads > 0 and self.hidden_size % self.heads:
            found.append(
                f"scratch.heads, scratch.hidden_size: {self.heads} does not divide {self.hidden_size}"
            )
        return found


@dataclass(frozen=True)
class Lora:
    """Train low-rank adapters beside frozen weights; the saved model has them merged in."""

    rank: int = _doc("rank of each adapter", default=16)
    alpha: int = _doc("scale: an adapter's output is multiplied by alpha / rank", default=32)
    dropout: float = _doc("dropout before each adapter", default=0.05)
    targets: list[str] = _doc(
        "modules that get one; empty: every linear layer but the head", default_factory=list
    )
    four_bit: bool = _doc("hold the frozen weights in 4-bit NF4 (QLoRA); needs a CUDA GPU", default=False)

    def problems(self) -> list[str]:
        return [] if self.rank >= 1 else ["lora.rank: must be at least 1"]


@dataclass(frozen=True)
class Recipe:
    """One training run. Either `model` (or `--model`) is fine-tuned, or `[scratch]` starts from nothing."""

    batch_size: int = _doc("chats, or packed rows, per device and step")
    learning_rate: float = _doc("peak learning rate")
    steps: int | None = _doc("optimiser steps; or give epochs", default=None)
    epochs: float | None = _doc("passes over the training data; or give steps", default=None)
    model: str | None = _doc("hub id or folder of the model to fine-tune", default=None)
    revision: str | None = _doc(
        "commit of the hub model, so that a rerun meets the same weights", default=None
    )
    scheduler: str = _doc("learning rate over time: " + ", ".join(SCHEDULERS), default="cosine")
    warmup: float = _doc("share of the steps in which the learning rate rises", default=0.05)
    weight_decay: float = _doc("AdamW's decay", default=0.05)
    beta2: float = _doc("AdamW's second-moment decay", default=0.95)
    max_length: int = _doc("longest chat in tokens; a longer one is an error", default=512)
    packing: bool = _doc(
        "fill rows of max_length with several chats that cannot see each other", default=False
    )
    attention: str = _doc("implementation: " + ", ".join(ATTENTIONS), default="sdpa")
    precision: str = _doc("arithmetic: " + ", ".join(PRECISIONS), default="auto")
    weights: str = _doc(
        "held weights: " + ", ".join(WEIGHTS) + "; bf16 only beneath adapters", default="fp32"
    )
    gradient_accumulation: int = _doc("batches whose gradients are added up for one step", default=1)
    gradient_checkpointing: bool = _doc("compute activations twice to hold fewer", default=False)
    eval_every: int = _doc("steps between validations, each with a checkpoint", default=100)
    patience: int | None = _doc("validations without improvement before stopping early", default=None)
    scratch: Scratch | None = _doc("the shape of a model trained from random weights", default=None)
    lora: Lora | None = _doc("train adapters instead of all weights", default=None)

    def problems(self) -> list[str]:
        positive = ("batch_size", "learning_rate", "steps", "epochs", "max_length", "gradient_accumulation",
                    "eval_every", "patience")  # fmt: skip
        found = [
            f"{name}: must be above 0 and finite"
            for name in positive
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf
        ]
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                found.append(f"{name}: unknown '{value}' ({nearest(value, known)})")
        checks = {
            "warmup: must be a share between 0 and 1": 0 <= self.warmup < 1,
            "max_length, scratch.context: no chat can be longer than the context": (
                self.scratch is None or self.max_length <= self.scratch.context
            ),
            "steps, epochs: give one of them": (self.steps is None) != (self.epochs is None),
            "model, scratch: a run starts from one of them": not (self.model and self.scratch),
            "revision, model: a revision is a hub model's": self.model is not None or self.revision is None,
            "lora, scratch: random weights need all of their training": not (self.lora and self.scratch),
            "weights, lora: bf16 would round away the updates of full fine-tuning; use fp32 or [lora]": (
                self.weights == "fp32" or self.lora is not None
            ),
        }
        found += [what for what, holds in checks.items() if not holds]
        return found + [problem for part in (self.scratch, self.lora) if part for problem in part.problems()]


SECTIONS: dict[str, type] = {"scratch": Scratch, "lora": Lora}


def recipe_names() -> list[str]:
    folder = files("training.recipes")
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name_or_file: str) -> Recipe:
    """Read a shipped recipe by name or a file by path. Raises BadInput with every problem found."""
    path = Path(name_or_file)
    if name_or_file in recipe_names():
        text = files("training.recipes").joinpath(f"{name_or_file}.toml").read_text(encoding="utf-8")
    elif path.suffix == ".toml" and path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise BadInput(f"no recipe '{name_or_file}'", hint=nearest(name_or_file, recipe_names()))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{name_or_file}: not valid TOML: {error}") from error
    problems: dict[str, str] = {}
    recipe: Recipe = _build(Recipe, values, "", problems)
    for problem in recipe.problems():
        if problems.keys().isdisjoint(problem.partition(":")[0].split(", ")):
            problems[problem] = problem
    if problems:
        raise BadInput("\n".join(f"{name_or_file}: {problem}" for problem in problems.values()))
    return recipe


def _build(kind: type, values: Mapping[str, Any], prefix: str, problems: dict[str, str]) -> Any:
    """An instance of the dataclass `kind`; what is wrong with a field goes to `problems`, by its name.

    A field that is missing or of another type stands in it by its default, or by 1, so that what the others
    contradict is found all the same.
    """
    known = {f.name: f for f in fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        section = SECTIONS.get(name)
        if name not in known:
            problems[prefix + name] = f"{prefix}{name}: unknown field ({nearest(name, known)})"
        elif section and isinstance(value, dict):
            arguments[name] = _build(section, value, f"{name}.", problems)
        elif _fits(value, known[name].type):
            arguments[name] = value
        else:
            kinds = getattr(known[name].type, "__name__", known[name].type)
            problems[prefix + name] = f"{prefix}{name}: {value!r} is not {kinds}"
    for name, spec in known.items():
        if spec.default is MISSING and spec.default_factory is MISSING and name not in arguments:
            arguments[name] = 1
            problems.setdefault(prefix + name, f"{prefix}{name}: missing ({spec.metadata['help']})")
    return kind(**arguments)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, list):
        return kind == list[str] and all(isinstance(item, str) for item in value)
    accepted = get_args(kind) or (kind,)
    return isinstance(value, accepted) or (float in accepted and isinstance(value, int))
