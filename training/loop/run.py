"""One training run: from a starting model to a folder that serving loads."""

import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import OutOfMemoryError
from transformers import set_seed
from transformers.utils import logging

from phi3flow.core.errors import Phi3flowError, first_line, translating
from phi3flow.core.jsonl import write_jsonl
from training.checkpoints import latest_checkpoint, ranks_of, step_of, trainer_state
from training.estimate.choices import settled
from training.estimate.footprint import ModelSize, checkpoint_size, model_size, require_room
from training.estimate.free_space import explaining_a_full_disk
from training.estimate.machine import this_machine
from training.estimate.smaller import smaller
from training.loop.callbacks import StepProgress, StopOnInterrupt
from training.loop.checked import CheckedTrainer
from training.loop.finish import merged, require_probes_changed, save, weights_moved
from training.loop.material import Material, from_chats
from training.loop.preference_material import from_preferences
from training.loop.start import Result, Run, empty_model, starting_model
from training.loop.trainers import trainer_for
from training.models.probes import answer_greedily, most_tokens, probe_prompts, probe_rows
from training.ranks import destroy, is_main_process, print0, world_size
from training.recipes.training_arguments import emulation_warning, has_bf16

if TYPE_CHECKING:
    from datasets import Dataset


def train(run: Run) -> Result:
    """Train, or resume from the latest valid checkpoint, and fill `run.work`.

    Raises KeyboardInterrupt after a checkpoint when interrupted, Phi3flowError when training fails.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(run.seed)
    material = (from_preferences if run.recipe.learns_preferences else from_chats)(run)
    size = model_size(empty_model(run, material.tokenizer), run.recipe.lora)
    run = settle(run, size, material.estimated)
    require_room(run.name, run.recipe, size, material.estimated, run.work)
    if warning := emulation_warning(run.recipe, native=has_bf16()):
        print0(f"  {warning}")
    with explaining_a_full_disk(run.work, run.checkpoints, checkpoint_size(run.recipe, size)):
        return _train(run, material)


def settle(run: Run, size: ModelSize, rows: "Dataset") -> Run:
    """The run with the machine's choice for each "auto" of its recipe. Says what was chosen and why."""
    recipe, why = settled(run.recipe, size, rows, this_machine())
    if why:
        print0(f"  {run.name}: {'; '.join(why)}")
    return replace(run, recipe=recipe)


def _train(run: Run, material: Material) -> Result:
    """Train and evaluate on all ranks; the rest is rank 0's work."""
    tokenizer = material.tokenizer
    prompts = probe_prompts(tokenizer, material.probed)
    trainer = trainer_for(run, starting_model(run, tokenizer), material)
    # The trainer has moved the model to its device, and new adapters change nothing yet.
    before = None
    if run.start and is_main_process():
        print0(f"  asking the model {len(prompts)} prompts, to see later what has changed")
        with trainer.answering_model() as model:
            before = answer_greedily(model, tokenizer, prompts)
    advance(run, trainer)
    trainer.require_finite_weights()
    trainer.broadcast_weights()
    test_loss = _test_loss(trainer, material.test)
    trained = trainer.whole_model(partial(starting_model, run, tokenizer))
    destroy()
    result = _measured(trainer, test_loss, material)
    if not is_main_process():
        return result
    model = merged(run, trained)
    moved = weights_moved(run, model, tokenizer)
    after = answer_greedily(model, tokenizer, prompts)
    changed = require_probes_changed(before, after, moved, result.margin)
    probes = probe_rows(tokenizer, prompts, most_tokens(model), after, before, dtype=model.dtype)
    write_jsonl(run.work / "probes.jsonl", probes)
    save(run, model, tokenizer)
    weight_change, changed_tensors = moved or (None, None)
    return replace(
        result, changed_probes=changed, weight_change=weight_change, changed_tensors=changed_tensors
    )


def _measured(trainer: CheckedTrainer, test_loss: float | None, material: Material) -> Result:
    """What the steps came to; not yet how the answers changed."""
    state = trainer.state
    validations = (row for row in state.log_history if _is_validation(row, state.best_global_step))
    kept: dict[str, float] = next(validations, {})
    return Result(
        state.global_step,
        state.best_metric or math.nan,
        test_loss,
        changed_probes=None,
        kept_step=state.best_global_step,
        long_chats=dict(material.lengths) or None,
        system_prompt=material.system_prompt,
        margin=kept.get("eval_margin"),
        accuracy=kept.get("eval_accuracy"),
        rows=dict(material.counts) if material.counts else None,
    )


def _is_validation(row: dict[str, float], step: int | None) -> bool:
    return row.get("step") == step and "eval_loss" in row


def advance(run: Run, trainer: CheckedTrainer) -> None:
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
        print0(f"  {run.name} continues after step {step_of(checkpoint)}{_other_batches(checkpoint)}")
        _optimise(run, trainer, checkpoint)


def _other_batches(checkpoint: Path) -> str:
    """What changes if as many processes as now did not write the checkpoint."""
    before, now = ranks_of(checkpoint), world_size()
    if before == now:
        return ""
    return f", on {now} process{'es' if now > 1 else ''} instead of {before}: batches have another size"


def has_ended(checkpoint: Path, patience: int | None) -> bool:
    """Whether its run had no step left or had stopped early. Transformers would do one more step."""
    state = trainer_state(checkpoint)
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return state["global_step"] >= state["max_steps"] or (patience is not None and waited >= patience)


def _optimise(run: Run, trainer: CheckedTrainer, checkpoint: Path | None) -> None:
    stopper = StopOnInterrupt()
    with ExitStack() as stack:
        for callback in (stopper, StepProgress(stack)):
            trainer.add_callback(callback)
        if trainer.layers:
            stack.enter_context(trainer.layers.compiling())
        stack.enter_context(_explaining_full_memory(run, trainer))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopper.interrupted:
        print0(f"  {run.name} stopped after step {trainer.state.global_step}; the same command continues")
        raise KeyboardInterrupt


def _explaining_full_memory(run: Run, trainer: CheckedTrainer) -> AbstractContextManager[None]:
    """Turn a GPU's error into a Phi3flowError: other processes may take what the estimate found free."""

    def explained(error: Exception) -> Exception:
        shape = model_size(empty_model(run, trainer.processing_class), run.recipe.lora)
        return Phi3flowError(
            f"the GPU's memory ran out after step {trainer.state.global_step}: {first_line(error)}",
            hint=smaller(run.recipe, shape, trainer.answers or trainer.train_dataset, this_machine()),
        )

    return translating({OutOfMemoryError: explained})


def _test_loss(trainer: CheckedTrainer, rows: "Dataset | None") -> float | None:
    if rows is None:
        return None
    loss: float = trainer.evaluate(rows, metric_key_prefix="test")["test_loss"]
    return loss if math.isfinite(loss) else None
