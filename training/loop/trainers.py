"""A trainer that is ready to start, for each method."""

from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training.checkpoints import HashCheckpoints
from training.loop.attention import VARLEN, attend_by_lengths
from training.loop.callbacks import MetricsFile
from training.loop.checked import CheckedTrainer
from training.loop.compiled import CompiledLayers
from training.loop.material import Material
from training.loop.preference_trainer import PairCollator, PairTrainer, RatingCollator, RatingTrainer
from training.loop.sharded import ShardedTrainer
from training.loop.start import METRICS, Run
from training.loop.trainer import PADDED_TO, AssistantTrainer, LineCollator
from training.recipes.training_arguments import arguments, dpo_arguments, kto_arguments, peft_config

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def trainer_for(run: Run, model: "PreTrainedModel", material: Material) -> CheckedTrainer:
    """The trainer of the recipe's method, for this material."""
    if run.recipe.learns_preferences:
        return make_preference_trainer(run, model, material)
    return make_trainer(run, model, material.tokenizer, material.train, material.validation)


def make_trainer(
    run: Run,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    held_out: "Dataset",
) -> AssistantTrainer:
    """For encoded chats to train and to validate on."""
    if run.recipe.attention == VARLEN:
        attend_by_lengths(model)
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
        callbacks=_callbacks(run),
    )
    _ready(run, trainer)
    if run.recipe.compile is True:
        trainer.layers = CompiledLayers(model)
    return trainer


def make_preference_trainer(run: Run, model: "PreTrainedModel", material: Material) -> CheckedTrainer:
    """For pairs (dpo) or rated answers (kto). New adapters are trained; without them it is `model`."""
    recipe, padding = run.recipe, material.tokenizer.pad_token_id
    fitted: dict[str, Any] = {"pad_to_multiple_of": PADDED_TO, "max_length": recipe.max_length}
    shared: dict[str, Any] = {
        "model": model,
        "peft_config": peft_config(recipe.lora),
        "train_dataset": material.train,
        "eval_dataset": material.validation,
        "processing_class": material.tokenizer,
        "callbacks": _callbacks(run),
    }
    trainer: PairTrainer | RatingTrainer
    if recipe.method == "dpo":
        args = dpo_arguments(recipe, run.checkpoints, run.seed)
        trainer = PairTrainer(args=args, data_collator=PairCollator(padding, **fitted), **shared)
    else:
        good = sum(material.train["label"])
        args = kto_arguments(recipe, run.checkpoints, run.seed, good, len(material.train) - good)
        trainer = RatingTrainer(args=args, data_collator=RatingCollator(padding, **fitted), **shared)
    trainer.origins, trainer.answers = list(material.origins), material.estimated
    _ready(run, trainer)
    return trainer


def _callbacks(run: Run) -> list[Any]:
    stopping = [] if run.recipe.patience is None else [EarlyStoppingCallback(run.recipe.patience)]
    return [MetricsFile(run.work / METRICS, run.name), HashCheckpoints(), *stopping]


def _ready(run: Run, trainer: CheckedTrainer) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if run.recipe.lora:
        _hold_adapters_in_fp32(trainer)


def _hold_adapters_in_fp32(trainer: CheckedTrainer) -> None:
    """Undo that TRL turns adapters of 4-bit weights to bf16, which rounds updates away."""
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
