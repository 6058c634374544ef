"""One training run: from a model to start with to a folder that serving loads."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.errors import BadInput
from phi3flow.files import read_jsonl, write_jsonl
from training.arguments import emulation_warning, has_bf16
from training.encode import encode_chats, packed
from training.models import load_config, load_model, load_tokenizer
from training.ranks import agreed, leads, leave, tell
from training.recipe import Recipe
from training.rows import Chat, load_chats

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.trainer import AssistantTrainer

VALIDATION_ROWS = 512
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
class _Sets:
    """Encoded chats; the test file may be elsewhere."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"


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


def train(run: Run) -> Result:
    """Train, or continue from the last sealed checkpoint, and fill `run.work`.

    Raises KeyboardInterrupt after a checkpoint when interrupted, Phi3flowError when training fails.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from training.estimate import checkpoint_size, require_room
    from training.full_disk import naming_a_full_disk
    from training.model_size import model_size
    from training.probes import probe_prompts

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(run.seed)
    chats, validation = load_chats(run.data / "train.jsonl"), load_chats(run.data / "val.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    rows = _encoded(run, tokenizer, chats, "train.jsonl")
    held_out = _encoded(run, tokenizer, validation[:VALIDATION_ROWS], "val.jsonl")
    size = model_size(empty_model(run, tokenizer), run.recipe.lora)
    require_room(run.name, run.recipe, size, rows, run.work)
    if warning := emulation_warning(run.recipe, native=has_bf16()):
        tell(f"  {warning}")
    sets = _Sets(rows, held_out, _test_rows(run, tokenizer))
    with naming_a_full_disk(run.work, run.checkpoints, checkpoint_size(run.recipe, size)):
        return _train(run, tokenizer, sets, probe_prompts(validation))


def _train(
    run: Run,
    tokenizer: "PreTrainedTokenizerBase",
    sets: _Sets,
    prompts: dict[str, list[dict[str, str]]],
) -> Result:
    """Train and judge together; what follows is rank 0's alone."""
    from training.advance import advance
    from training.finish import merged, require_probes_changed, save, weights_moved
    from training.probes import answer_greedily, most_tokens, probe_rows

    trainer = _trainer(run, starting_model(run, tokenizer), tokenizer, sets.train, sets.validation)
    # The trainer has moved the model to its device; new adapters add nothing yet.
    before = answer_greedily(trainer.model, tokenizer, prompts) if run.start and leads() else None
    advance(run, trainer)
    trainer.require_finite_weights()
    trainer.take_weights_of_rank_0()
    test_loss = _test_loss(trainer, sets.test)
    best = agreed(_best_loss(run) if leads() else math.nan)
    leave()
    if not leads():
        return Result(trainer.state.global_step, best, test_loss, None)
    model = merged(run, trainer)
    moved = weights_moved(run, model, tokenizer)
    after = answer_greedily(model, tokenizer, prompts)
    changed = require_probes_changed(before, after, moved)
    write_jsonl(run.work / "probes.jsonl", probe_rows(tokenizer, prompts, most_tokens(model), after, before))
    save(run, model, tokenizer)
    kept = trainer.state.best_global_step
    weight_change, changed_tensors = moved or (None, None)
    return Result(trainer.state.global_step, best, test_loss, changed, weight_change, changed_tensors, kept)


def starting_tokenizer(run: Run, chats: list[Chat]) -> "PreTrainedTokenizerBase":
    """The model's own, or one trained on the chats for a recipe with [scratch]. Raises BadInput."""
    from training.tokenizer import train_tokenizer

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
    from training.scratch import new_model

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

    from training.scratch import new_config

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


def make_trainer(
    run: Run,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    chats: list[Chat],
    validation: list[Chat],
) -> "AssistantTrainer":
    """Ready to train on `chats`. Raises BadInput for rows that cannot be learned from."""
    rows = _encoded(run, tokenizer, chats, "train.jsonl")
    return _trainer(run, model, tokenizer, rows, _encoded(run, tokenizer, validation, "val.jsonl"))


def _trainer(
    run: Run,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    held_out: "Dataset",
) -> "AssistantTrainer":
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from training.arguments import arguments, peft_config
    from training.checkpoints import SealCheckpoints
    from training.progress import MetricsFile
    from training.trainer import PADDED_TO, AssistantTrainer, LineCollator

    callbacks: list[Any] = [MetricsFile(run.work / METRICS, run.name), SealCheckpoints()]
    if run.recipe.patience is not None:
        callbacks.append(EarlyStoppingCallback(run.recipe.patience))
    trainer = AssistantTrainer(
        model=model,
        args=arguments(run.recipe, run.checkpoints, run.seed),
        data_collator=LineCollator(
            tokenizer.pad_token_id,
            padding_free=run.recipe.packing,
            pad_to_multiple_of=None if run.recipe.packing else PADDED_TO,
        ),
        peft_config=peft_config(run.recipe.lora),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if run.recipe.lora:
        _hold_adapters_in_fp32(trainer)
    return trainer


def _hold_adapters_in_fp32(trainer: "AssistantTrainer") -> None:
    """Before the optimiser is made: TRL turns those of 4-bit weights to bf16, which rounds updates away."""
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _encoded(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: list[Chat], name: str) -> "Dataset":
    rows = encode_chats(tokenizer, chats, run.recipe.max_length, (run.data / name).as_posix())
    return packed(rows, run.recipe.max_length) if run.recipe.packing else rows


def _best_loss(run: Run) -> float:
    return min(row["eval_loss"] for row in read_jsonl(run.work / METRICS) if "eval_loss" in row)


def _test_rows(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "Dataset | None":
    """Read before training, so that a chat that is too long is told then; scored once, at the end."""
    path = run.data / "test.jsonl"
    return _encoded(run, tokenizer, load_chats(path), path.name) if path.exists() else None


def _test_loss(trainer: "AssistantTrainer", rows: "Dataset | None") -> float | None:
    if rows is None:
        return None
    loss: float = trainer.evaluate(rows, metric_key_prefix="test")["test_loss"]
    return loss if math.isfinite(loss) else None
