"""One training run: from a starting model to a folder that serving loads."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import write_jsonl
from training.checkpoints import HashCheckpoints, latest_checkpoint, step_of, trainer_state
from training.data.encode import encode_chats, packed
from training.estimate.footprint import checkpoint_size, model_size, require_room
from training.estimate.free_space import explaining_a_full_disk
from training.loop.callbacks import MetricsFile, StepBar, StopOnInterrupt
from training.loop.finish import merged, require_probes_changed, save, weights_moved
from training.loop.start import METRICS, Result, Run, empty_model, starting_model, starting_tokenizer
from training.loop.trainer import PADDED_TO, AssistantTrainer, LineCollator
from training.models.probes import answer_greedily, most_tokens, probe_prompts, probe_rows
from training.ranks import destroy, is_main_process, print0
from training.recipes.training_arguments import arguments, emulation_warning, has_bf16, peft_config

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VALIDATION_ROWS = 512


class _Sets(NamedTuple):
    """Encoded chats. There is no test set without test.jsonl."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"


def train(run: Run) -> Result:
    """Train, or resume from the latest valid checkpoint, and fill `run.work`.

    Raises KeyboardInterrupt after a checkpoint when interrupted, Phi3flowError when training fails.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(run.seed)
    chats, validation = load_chats(run.data / "train.jsonl"), load_chats(run.data / "val.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    rows = encoded(run, tokenizer, chats, "train.jsonl")
    held_out = encoded(run, tokenizer, validation[:VALIDATION_ROWS], "val.jsonl")
    size = model_size(empty_model(run, tokenizer), run.recipe.lora)
    require_room(run.name, run.recipe, size, rows, run.work)
    if warning := emulation_warning(run.recipe, native=has_bf16()):
        print0(f"  {warning}")
    sets = _Sets(rows, held_out, _test_rows(run, tokenizer))
    with explaining_a_full_disk(run.work, run.checkpoints, checkpoint_size(run.recipe, size)):
        return _train(run, tokenizer, sets, probe_prompts(tokenizer, validation))


def _train(
    run: Run,
    tokenizer: "PreTrainedTokenizerBase",
    sets: _Sets,
    prompts: dict[str, list[dict[str, str]]],
) -> Result:
    """Train and evaluate on all ranks; the rest is rank 0's work."""
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, sets.train, sets.validation)
    # The trainer has moved the model to its device, and new adapters change nothing yet.
    before = answer_greedily(trainer.model, tokenizer, prompts) if run.start and is_main_process() else None
    advance(run, trainer)
    trainer.require_finite_weights()
    trainer.broadcast_weights()
    test_loss = _test_loss(trainer, sets.test)
    destroy()
    best = trainer.state.best_metric or math.nan
    if not is_main_process():
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


def advance(run: Run, trainer: AssistantTrainer) -> None:
    """Train to the end, from the start or from the latest checkpoint, and load the best weights.

    Raises KeyboardInterrupt after a checkpoint.
    """
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint is None:
        _optimise(run, trainer, None)
    elif has_ended(checkpoint, run.recipe.patience):
        print0(f"  {run.name} is already trained; only the steps after training are repeated")
        trainer.load_best_of(checkpoint)
    else:
        print0(f"  {run.name} continues after step {step_of(checkpoint)}")
        _optimise(run, trainer, checkpoint)


def has_ended(checkpoint: Path, patience: int | None) -> bool:
    """Whether its run had no step left or had stopped early. Transformers would do one more step."""
    state = trainer_state(checkpoint)
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return state["global_step"] >= state["max_steps"] or (patience is not None and waited >= patience)


def _optimise(run: Run, trainer: AssistantTrainer, checkpoint: Path | None) -> None:
    stopper = StopOnInterrupt()
    with ExitStack() as stack:
        for callback in (stopper, StepBar(stack)):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopper.interrupted:
        print0(f"  {run.name} stopped after step {trainer.state.global_step}; the same command continues")
        raise KeyboardInterrupt


def make_trainer(
    run: Run,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    held_out: "Dataset",
) -> AssistantTrainer:
    """A trainer that is ready to start, for encoded chats to train and to validate on."""
    callbacks: list[Any] = [MetricsFile(run.work / METRICS, run.name), HashCheckpoints()]
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


def _hold_adapters_in_fp32(trainer: AssistantTrainer) -> None:
    """Undo that TRL turns adapters of 4-bit weights to bf16, which rounds updates away."""
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def encoded(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: list[Chat], name: str) -> "Dataset":
    """The rows of the data file `name`, packed if the recipe says so. Raises BadInput for too long ones."""
    rows = encode_chats(tokenizer, chats, run.recipe.max_length, (run.data / name).as_posix())
    return packed(rows, run.recipe.max_length) if run.recipe.packing else rows


def _test_rows(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "Dataset | None":
    """The test set, encoded before training so that a chat that is too long fails early; scored once."""
    path = run.data / "test.jsonl"
    return encoded(run, tokenizer, load_chats(path), path.name) if path.exists() else None


def _test_loss(trainer: AssistantTrainer, rows: "Dataset | None") -> float | None:
    if rows is None:
        return None
    loss: float = trainer.evaluate(rows, metric_key_prefix="test")["test_loss"]
    return loss if math.isfinite(loss) else None
