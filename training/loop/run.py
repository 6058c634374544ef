"""One training run: from a starting model to a folder that serving loads."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import OutOfMemoryError
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.chats.rows import load_split
from phi3flow.chats.system_prompt import shared_system_prompt
from phi3flow.core.errors import Phi3flowError, first_line, translating
from phi3flow.core.jsonl import write_jsonl
from training.checkpoints import HashCheckpoints, latest_checkpoint, ranks_of, step_of, trainer_state
from training.data.encode import Encoded, encode_chats, packed
from training.estimate.choices import settled
from training.estimate.footprint import ModelSize, checkpoint_size, model_size, require_room
from training.estimate.free_space import explaining_a_full_disk
from training.estimate.machine import this_machine
from training.loop.attention import VARLEN, attend_by_lengths
from training.loop.callbacks import MetricsFile, StepProgress, StopOnInterrupt
from training.loop.compiled import CompiledLayers
from training.loop.finish import merged, require_probes_changed, save, weights_moved
from training.loop.sharded import ShardedTrainer
from training.loop.start import METRICS, Result, Run, empty_model, starting_model, starting_tokenizer
from training.loop.trainer import PADDED_TO, AssistantTrainer, LineCollator
from training.models.probes import FROM_VALIDATION, answer_greedily, most_tokens, probe_prompts, probe_rows
from training.ranks import destroy, is_main_process, print0, world_size
from training.recipes.training_arguments import arguments, emulation_warning, has_bf16, peft_config

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VALIDATION_ROWS = 512


class _Sets(NamedTuple):
    """Encoded chats, and what became of long ones. There is no test set without test.jsonl."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"
    lengths: dict[str, dict[str, int]]


def encode_splits(run: Run, tokenizer: "PreTrainedTokenizerBase", splits: Mapping[str, list[Chat]]) -> _Sets:
    """Every split, before anything is trained: a chat that cannot be encoded fails early."""
    made = {name: encode(run, tokenizer, chats) for name, chats in splits.items()}
    for name, (_, lengths) in made.items():
        if sentence := lengths.sentence(run.recipe.long_chats_rule, run.recipe.max_length):
            print0(f"  {name}: {sentence}")
    told = {name: lengths.told() for name, (_, lengths) in made.items() if lengths.long_chats}
    test = made["test"].rows if "test" in made else None
    return _Sets(made["train"].rows, made["val"].rows, test, told)


def train(run: Run) -> Result:
    """Train, or resume from the latest valid checkpoint, and fill `run.work`.

    Raises KeyboardInterrupt after a checkpoint when interrupted, Phi3flowError when training fails.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(run.seed)
    splits = splits_of(run.data)
    tokenizer = starting_tokenizer(run, splits["train"])
    sets = encode_splits(run, tokenizer, splits)
    size = model_size(empty_model(run, tokenizer), run.recipe.lora)
    run = settle(run, size, sets.train)
    require_room(run.name, run.recipe, size, sets.train, run.work)
    if warning := emulation_warning(run.recipe, native=has_bf16()):
        print0(f"  {warning}")
    with explaining_a_full_disk(run.work, run.checkpoints, checkpoint_size(run.recipe, size)):
        probes = probe_prompts(tokenizer, _short(run, tokenizer, splits["val"]))
        result = _train(run, tokenizer, sets, probes)
    return replace(result, system_prompt=shared_system_prompt(chat.messages for chat in splits["train"]))


def settle(run: Run, size: ModelSize, rows: "Dataset") -> Run:
    """The run with the machine's choice for each "auto" of its recipe. Says what was chosen and why."""
    recipe, why = settled(run.recipe, size, rows, this_machine())
    if why:
        print0(f"  {run.name}: {'; '.join(why)}")
    return replace(run, recipe=recipe)


def _short(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: list[Chat]) -> list[Chat]:
    """The first chats whose prompts an endpoint can be asked: not too long, and without tools."""
    limit, plain = run.recipe.max_length, (chat for chat in chats if not chat.uses_tools)
    short = (chat for chat in plain if len(encode_prompt(tokenizer, chat.prompt)) <= limit)
    return list(islice(short, FROM_VALIDATION))


def splits_of(data: Path) -> dict[str, list[Chat]]:
    """The chats of each split; the first of val.jsonl, and test.jsonl if it is there."""
    paths = {name: data / f"{name}.jsonl" for name in ("train", "val", "test")}
    splits = {name: load_split(path) for name, path in paths.items() if name != "test" or path.exists()}
    return splits | {"val": splits["val"][:VALIDATION_ROWS]}


def _train(
    run: Run,
    tokenizer: "PreTrainedTokenizerBase",
    sets: _Sets,
    prompts: dict[str, list[dict[str, str]]],
) -> Result:
    """Train and evaluate on all ranks; the rest is rank 0's work."""
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, sets.train, sets.validation)
    # The trainer has moved the model to its device, and new adapters change nothing yet.
    before = None
    if run.start and is_main_process():
        print0(f"  asking the model {len(prompts)} prompts, to see later what has changed")
        with trainer.answering_model() as model:
            before = answer_greedily(model, tokenizer, prompts)
    advance(run, trainer)
    trainer.require_finite_weights()
    trainer.broadcast_weights()
    test_loss = _test_loss(trainer, sets.test)
    trained = trainer.whole_model(partial(starting_model, run, tokenizer))
    destroy()
    best = trainer.state.best_metric or math.nan
    if not is_main_process():
        return Result(trainer.state.global_step, best, test_loss, None)
    model = merged(run, trained)
    moved = weights_moved(run, model, tokenizer)
    after = answer_greedily(model, tokenizer, prompts)
    changed = require_probes_changed(before, after, moved)
    probes = probe_rows(tokenizer, prompts, most_tokens(model), after, before, dtype=model.dtype)
    write_jsonl(run.work / "probes.jsonl", probes)
    save(run, model, tokenizer)
    kept = trainer.state.best_global_step
    weight_change, changed_tensors = moved or (None, None)
    moves = (changed, weight_change, changed_tensors, kept)
    return Result(trainer.state.global_step, best, test_loss, *moves, long_chats=sets.lengths or None)


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


def _optimise(run: Run, trainer: AssistantTrainer, checkpoint: Path | None) -> None:
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


def _explaining_full_memory(run: Run, trainer: AssistantTrainer) -> AbstractContextManager[None]:
    """Turn a GPU's error into a Phi3flowError: other processes may take what the estimate found free."""

    def explained(error: Exception) -> Exception:
        keeps = run.recipe.gradient_checkpointing is not True
        return Phi3flowError(
            f"the GPU's memory ran out after step {trainer.state.global_step}: {first_line(error)}",
            hint=("set gradient_checkpointing = true in the recipe, or " if keeps else "")
            + "lower batch_size and raise gradient_accumulation in the recipe",
        )

    return translating({OutOfMemoryError: explained})


def make_trainer(
    run: Run,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    held_out: "Dataset",
) -> AssistantTrainer:
    """A trainer that is ready to start, for encoded chats to train and to validate on."""
    if run.recipe.attention == VARLEN:
        attend_by_lengths(model)
    callbacks: list[Any] = [MetricsFile(run.work / METRICS, run.name), HashCheckpoints()]
    if run.recipe.patience is not None:
        callbacks.append(EarlyStoppingCallback(run.recipe.patience))
    trainer = (ShardedTrainer if run.recipe.sharding else AssistantTrainer)(
        model=model,
        args=arguments(run.recipe, run.checkpoints, run.seed),
        data_collator=LineCollator(
            tokenizer.pad_token_id,
            padding_free=run.recipe.packing,
            pad_to_multiple_of=None if run.recipe.packing else PADDED_TO,
            longest=run.recipe.max_length,
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
    if run.recipe.compile is True:
        trainer.layers = CompiledLayers(model)
    return trainer


def _hold_adapters_in_fp32(trainer: AssistantTrainer) -> None:
    """Undo that TRL turns adapters of 4-bit weights to bf16, which rounds updates away."""
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def encode(run: Run, tokenizer: "PreTrainedTokenizerBase", chats: list[Chat]) -> Encoded:
    """Chats as rows for the trainer, packed if the recipe says so. Raises BadInput."""
    recipe = run.recipe
    rows, lengths = encode_chats(tokenizer, chats, recipe.max_length, recipe.long_chats_rule)
    return Encoded(packed(rows, recipe.max_length) if recipe.packing else rows, lengths)


def _test_loss(trainer: AssistantTrainer, rows: "Dataset | None") -> float | None:
    if rows is None:
        return None
    loss: float = trainer.evaluate(rows, metric_key_prefix="test")["test_loss"]
    return loss if math.isfinite(loss) else None
