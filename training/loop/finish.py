"""The end of a run: what training did to the model, and the folder that serving loads."""

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import read_jsonl
from training.loop.start import METRICS, Run, revision, starting_model
from training.loop.weight_change import WeightChange, stored_weights, weight_change
from training.models.loading import load_model, stop_token_ids, weights_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.loop.trainer import AssistantTrainer
    from training.models.probes import Answer


def merged(run: Run, trainer: "AssistantTrainer") -> "PreTrainedModel":
    """The model as it will be served: without autocast, adapters merged into the weights."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if run.recipe.lora is None:
        return model
    return merged_anew(run, model) if run.recipe.lora.four_bit else model.merge_and_unload()


def merged_anew(run: Run, trained: Any) -> "PreTrainedModel":
    """The adapters of `trained` merged into the starting model, loaded on the CPU in the recipe's dtype.

    Merged into 4-bit weights, they would be rounded to 4 bits with them.
    """
    from peft import PeftModel

    adapters = run.work / "adapters"
    trained.save_pretrained(adapters)
    base = load_model(str(run.start), revision=revision(run), weights=run.recipe.weights)
    model = PeftModel.from_pretrained(base, adapters).merge_and_unload()
    shutil.rmtree(adapters)
    return model


def weights_moved(
    run: Run, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> WeightChange | None:
    """How far from the start; None if that is not stored as safetensors. Raises Phi3flowError for nowhere."""
    after = model.state_dict()
    if run.start is None:
        moved = weight_change(_weights_at_random(run, tokenizer), after)
    else:
        with stored_weights(weights_folder(run.start, revision(run))) as before:
            moved = weight_change(before, after)
    if moved is not None and moved.relative == 0:
        lora = run.recipe.lora is not None and run.recipe.weights == "bf16"
        why = "bf16 cannot hold so small a change" if lora else "every update was rounded away"
        raise Phi3flowError(
            f"training changed no weight: at learning_rate {run.recipe.learning_rate:g} {why}",
            hint="raise learning_rate or steps in the recipe" + (', or set weights = "fp32"' if lora else ""),
        )
    return moved


def _weights_at_random(run: Run, tokenizer: "PreTrainedTokenizerBase") -> Mapping[str, Any]:
    """Those of a run from scratch: its seed makes them again."""
    before = starting_model(run, tokenizer).state_dict()
    return dict.fromkeys(before, before.__getitem__)


def require_probes_changed(
    before: "Mapping[str, Answer] | None", after: "Mapping[str, Answer]", moved: WeightChange | None
) -> float | None:
    """The share of probes with another answer than before; None from scratch. Raises Phi3flowError for 0."""
    if before is None:
        return None
    changed = sum(after[name].text != before[name].text for name in after) / len(after)
    if changed == 0:
        by = f"; the weights moved by {moved.relative:.1e} of their norm" if moved else ""
        raise Phi3flowError(
            f"training changed nothing: every probe is answered as before{by}",
            hint="raise learning_rate or steps in the recipe",
        )
    return changed


def save(run: Run, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Save what serving needs: the weights, the tokenizer, the tokens that end an answer; and the picture."""
    from training.tracking.loss_curve import draw_loss_curve

    for config in (model.config, model.generation_config):
        config.eos_token_id = stop_token_ids(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(run.work)
    tokenizer.save_pretrained(run.work)
    draw_loss_curve(read_jsonl(run.work / METRICS), run.work / "loss.png", run.name)
