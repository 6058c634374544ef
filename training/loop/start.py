"""What a run starts from: its parts, and the model and tokenizer it begins with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.chats.rows import Chat
from phi3flow.core.errors import BadInput
from training.models.loading import load_config, load_model, load_tokenizer
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS = "metrics.jsonl"
CHECKPOINTS = ".checkpoints"  # hidden, so that they are no part of the model folder's hash


@dataclass(frozen=True)
class Run:
    """What to train and where: `work` becomes the model folder `name` when everything is in it."""

    data: Path
    recipe: Recipe
    work: Path
    name: str
    start: str | None
    seed: int

    @property
    def checkpoints(self) -> Path:
        return self.work / CHECKPOINTS


@dataclass(frozen=True)
class Result:
    """How a run ended. Losses are in nats per assistant token; the test file was opened for this alone."""

    steps: int
    validation_loss: float
    test_loss: float | None
    changed_probes: float | None  # share of probe answers that differ from before; None from scratch
    weight_change: float | None = None  # |after - before| / |before| of the saved weights, adapters merged
    changed_tensors: float | None = None  # share of the weight tensors in which anything changed
    kept_step: int | None = None  # after which validation loss was lowest: its weights are the saved ones


def starting_tokenizer(run: Run, chats: list[Chat]) -> "PreTrainedTokenizerBase":
    """The model's own, or one trained on the chats for a recipe with [scratch]. Raises BadInput."""
    from training.models.tokenizer import train_tokenizer

    shape = run.recipe.scratch
    if run.start and shape is None:
        return load_tokenizer(run.start, revision=revision(run))
    if run.start or shape is None:
        raise BadInput(
            "the recipe must name what to start from: a model or [scratch], not both and not neither",
            hint="phi3flow train --model ID_OR_DIR with a recipe without [scratch]",
        )
    texts = (message["content"] for chat in chats for message in chat.messages)
    return train_tokenizer(texts, shape.vocab_size, shape.context)


def starting_model(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Loaded, or of the recipe's shape with random weights."""
    from training.models.scratch import new_model

    recipe = run.recipe
    if run.start is None:
        assert recipe.scratch is not None  # noqa: S101 - starting_tokenizer has seen to it
        return new_model(recipe.scratch, tokenizer, run.seed)
    return load_model(
        run.start,
        revision=revision(run),
        weights=recipe.weights,
        attention=recipe.attention,
        four_bit=recipe.lora is not None and recipe.lora.four_bit,
    )


def empty_model(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """What starting_model returns, on the meta device: shapes without weights. Raises BadInput."""
    import torch
    from transformers import AutoModelForCausalLM, Phi3ForCausalLM

    from training.models.scratch import new_config

    shape = run.recipe.scratch
    with torch.device("meta"):
        if run.start is None and shape is not None:
            return Phi3ForCausalLM(new_config(shape, tokenizer))
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            load_config(str(run.start), revision=revision(run))
        )
        return model


def revision(run: Run) -> str | None:
    """The recipe's revision is that of the recipe's own model; `--model` brings a folder or its newest."""
    return run.recipe.revision if run.start == run.recipe.model else None
