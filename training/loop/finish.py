"""The end of a run: what training did to the model, and the folder that serving loads."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.end_of_turn import stop_token_ids
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import read_jsonl
from training.loop.start import METRICS, Run, starting_model
from training.models.loading import licence_files, load_model, weights_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.models.probes import Answer


ADAPTER = "adapter"  # folder beside the merged weights, as PEFT writes it


class WeightChange(NamedTuple):
    """`relative`: |after - before| / |before| of all weights as one vector; `tensors`: share that changed."""

    relative: float
    tensors: float


def merged(run: Run, model: Any) -> "PreTrainedModel":
    """The trained `model` to serve: adapters merged into the weights. Keeps the adapters, too."""
    if run.recipe.lora is None:
        trained: PreTrainedModel = model
        return trained
    model.save_pretrained(run.work / ADAPTER, save_embedding_layers=False)
    return merged_into_start(run, model) if run.recipe.lora.four_bit else model.merge_and_unload()


def merged_into_start(run: Run, trained: Any) -> "PreTrainedModel":
    """The starting model in the recipe's dtype, the saved adapters of `trained` merged in, on its device.

    Merging into 4-bit weights would round the adapters to 4 bits, too.
    """
    from peft import PeftModel

    base = load_model(str(run.start), revision=run.revision, weights=run.recipe.weights)
    model: Any = PeftModel.from_pretrained(base, run.work / ADAPTER).merge_and_unload()
    merged: PreTrainedModel = model.to(trained.device)
    return merged


def weights_moved(
    run: Run, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> WeightChange | None:
    """How far `model` is from the starting weights; None if those are not stored as safetensors.

    Raises Phi3flowError if no weight changed.
    """
    moved = _weight_change(_starting_weights(run, tokenizer), model.state_dict())
    if moved is not None and moved.relative == 0:
        lora = run.recipe.lora is not None and run.recipe.weights == "bf16"
        why = "bf16 cannot hold so small a change" if lora else "every update was rounded away"
        raise Phi3flowError(
            f"training changed no weight: at learning_rate {run.recipe.learning_rate:g} {why}",
            hint="raise learning_rate or steps in the recipe" + (', or set weights = "fp32"' if lora else ""),
        )
    return moved


def _starting_weights(run: Run, tokenizer: "PreTrainedTokenizerBase") -> "Iterator[tuple[str, torch.Tensor]]":
    """The tensors before training, one at a time: from the safetensors files, or made again from the seed."""
    from safetensors import safe_open

    if run.start is None:
        yield from starting_model(run, tokenizer).state_dict().items()
        return
    for path in sorted(weights_folder(run.start, run.revision).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)


def _weight_change(
    before: "Iterable[tuple[str, torch.Tensor]]", after: Mapping[str, "torch.Tensor"]
) -> WeightChange | None:
    """Compare tensors of the same name, one at a time and in fp32; None if no name is in both."""
    squared_norm = squared_change = 0.0
    changed: list[bool] = []
    for name, stored in before:
        if name not in after:
            continue
        now = after[name]
        then = stored.to(now)  # a model held in bf16 starts from rounded weights
        difference = _squared_norm(now.float() - then.float())
        squared_change += difference
        squared_norm += _squared_norm(then)
        changed.append(difference > 0)
    if not changed:
        return None
    relative = math.sqrt(squared_change / squared_norm) if squared_norm else math.inf
    return WeightChange(relative, sum(changed) / len(changed))


def _squared_norm(tensor: "torch.Tensor") -> float:
    """Summed in double precision: fp32 would lose a small change of a large tensor."""
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def require_probes_changed(
    before: "Mapping[str, Answer] | None",
    after: "Mapping[str, Answer]",
    moved: WeightChange | None,
    margin: float | None = None,
) -> float | None:
    """The share of probes with a new answer; None from scratch. Raises Phi3flowError if there is none.

    With a held-out `margin` above 0 the model has learned which answers are better, if it gave them before.
    """
    if before is None:
        return None
    changed = sum(after[name].text != before[name].text for name in after) / len(after)
    if changed == 0 and not (margin and margin > 0):
        by = f"; the weights moved by {moved.relative:.1e} of their norm" if moved else ""
        raise Phi3flowError(
            f"training changed no answer: every probe is answered as before{by}",
            hint="raise learning_rate or steps in the recipe",
        )
    return changed


def save(run: Run, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Save weights, tokenizer and what ends an answer, the start's licence, a loss curve."""
    for config in (model.config, model.generation_config):
        config.eos_token_id = stop_token_ids(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(run.work)
    tokenizer.save_pretrained(run.work)
    for file in licence_files(run.start, run.revision) if run.start else ():
        shutil.copyfile(file, run.work / file.name)
    measured = "nats per token" if run.recipe.method == "sft" else run.recipe.method
    _draw_loss_curve(read_jsonl(run.work / METRICS), run.work / "loss.png", run.name, measured)


def _draw_loss_curve(metrics: list[dict[str, Any]], path: Path, title: str, measured: str) -> None:
    """Write a PNG of `loss` and `eval_loss` (log scale) by step; `measured` names what they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for name, label, style in (
        ("loss", "training", {"lw": 1.2}),
        ("eval_loss", "validation", {"lw": 2, "marker": "o"}),
    ):
        points = [(row["step"], row[name]) for row in metrics if name in row]
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, **style)
    axes.set(title=title, xlabel="optimiser step", ylabel=f"loss ({measured})", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
