"""One training run: from a model to start with to a folder that serving loads."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phi3flow.chats.rows import Chat, load_chats
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from training.data.encode import encode_chats, packed
from training.loop.start import METRICS, Result, Run, empty_model, starting_model, starting_tokenizer
from training.ranks import agreed, leads, leave, tell
from training.recipes.arguments import emulation_warning, has_bf16

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.loop.trainer import AssistantTrainer

VALIDATION_ROWS = 512


@dataclass(frozen=True)
class _Sets:
    """Encoded chats; the test file may be elsewhere."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"


def train(run: Run) -> Result:
    """Train, or continue from the last sealed checkpoint, and fill `run.work`.

    Raises KeyboardInterrupt after a checkpoint when interrupted, Phi3flowError when training fails.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from training.estimate.footprint import checkpoint_size, require_room
    from training.estimate.full_disk import naming_a_full_disk
    from training.estimate.model_size import model_size
    from training.models.probes import probe_prompts

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
    from training.loop.advance import advance
    from training.loop.finish import merged, require_probes_changed, save, weights_moved
    from training.models.probes import answer_greedily, most_tokens, probe_rows

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

    from training.checkpoints import SealCheckpoints
    from training.loop.progress import MetricsFile
    from training.loop.trainer import PADDED_TO, AssistantTrainer, LineCollator
    from training.recipes.arguments import arguments, peft_config

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
