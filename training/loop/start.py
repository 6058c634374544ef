"""What a run is, and the model and tokenizer it starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.chats.chat import Chat
from phi3flow.chats.template_check import keep_system
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import sha256_of
from training.models.loading import load_config, load_model, load_tokenizer
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS = "metrics.jsonl"
CHECKPOINTS = ".checkpoints"  # hidden: not part of the model folder's hash


@dataclass(frozen=True)
class Run:
    """What to train and where. `work` is renamed to the model folder `name` once it is complete.

    `start` is the model to fine-tune (hub id or folder), None for a recipe with [scratch].
    """

    data: Path
    recipe: Recipe
    work: Path
    name: str
    start: str | None
    seed: int

    @property
    def checkpoints(self) -> Path:
        return self.work / CHECKPOINTS

    @property
    def test_files(self) -> list[Path]:
        """The test sets beside the starting model, and beside the model that is made."""
        folders = [Path(self.start).parent] if self.start and Path(self.start).is_dir() else []
        files = (folder / "data" / "test.jsonl" for folder in (*folders, self.work.parent))
        found = {path.resolve(): path for path in files if path.is_file()}
        return list({sha256_of(path): path for path in found.values()}.values())

    @property
    def revision(self) -> str | None:
        """The commit of the hub model. The recipe's revision belongs to its own model, not to `--model`."""
        return self.recipe.revision if self.start == self.recipe.model else None


@dataclass(frozen=True)
class Result:
    """How a run ended. sft's losses are in nats per assistant token.

    It scores test.jsonl once, at the end.
    """

    steps: int
    validation_loss: float
    test_loss: float | None
    changed_probes: float | None  # share of probes answered differently than before; None from scratch
    weight_change: float | None = None  # |after - before| / |before| of the saved weights, adapters merged
    changed_tensors: float | None = None  # share of the weight tensors that changed
    kept_step: int | None = None  # step of the lowest validation loss, whose weights are saved
    long_chats: dict[str, dict[str, int]] | None = None  # of each split with chats beyond max_length: Lengths
    system_prompt: str = ""  # of most training rows, where they share one
    margin: float | None = None  # of dpo and kto, on the held-out rows with the saved weights; 0 at the start
    accuracy: float | None = None  # of dpo: share of the held-out pairs whose better answer gained more
    rows: dict[str, int] | None = None  # of dpo and kto: train, held_out, no_preference, too_long


def starting_tokenizer(run: Run, chats: list[Chat]) -> "PreTrainedTokenizerBase":
    """The model's own tokenizer, or one trained on `chats` for a recipe with [scratch]. Raises BadInput."""
    from training.models.scratch import train_tokenizer

    shape = run.recipe.scratch
    if run.start and shape is None:
        tokenizer = load_tokenizer(run.start, revision=run.revision)
        if not run.recipe.learns_preferences:  # else the start's users have chatted with its own
            keep_system(tokenizer, run.recipe.system)
        return tokenizer
    if run.start or shape is None:
        raise BadInput(
            "nothing to start from, or two things: give either a model or a recipe with [scratch]",
            hint="phi3flow train --model ID_OR_DIR with a recipe without [scratch]",
        )
    texts = (message["content"] for chat in chats for message in chat.messages)
    return train_tokenizer(texts, shape.vocab_size, shape.context)


def starting_model(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """The loaded model, or one of the recipe's [scratch] shape with random weights."""
    from training.models.scratch import new_model

    recipe = run.recipe
    if run.start is None:
        assert recipe.scratch is not None  # noqa: S101 - starting_tokenizer has checked it
        return new_model(recipe.scratch, tokenizer, run.seed)
    return load_model(
        run.start,
        revision=run.revision,
        weights=recipe.weights,
        attention=recipe.attention if recipe.attention in {"eager", "flash_attention_2"} else "sdpa",
        four_bit=recipe.lora is not None and recipe.lora.four_bit,
    )


def empty_model(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """`starting_model` on the meta device: shapes without weights. Raises BadInput."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        if run.start is None:
            return starting_model(run, tokenizer)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            load_config(run.start, revision=run.revision), trust_remote_code=False
        )
        return model
