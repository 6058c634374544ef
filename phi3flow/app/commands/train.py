"""`phi3flow train` and `toy-base`: fine-tune a model by a recipe; make the one that needs no hub."""

import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from phi3flow.app.next_run import make_comparable
from phi3flow.app.run_folder import train_command
from phi3flow.core.console import Outcome
from phi3flow.core.folder_lock import one_writer, writing
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from training.models.adapter import require_no_adapter

if TYPE_CHECKING:
    from training.loop.start import Result
    from training.recipes.recipe import Recipe as LoadedRecipe

Data = Annotated[Path, Option(metavar="DIR", help="Folder that `phi3flow prepare` wrote.")]
Recipe = Annotated[
    str,
    Option(
        metavar="NAME_OR_FILE",
        help="A TOML file or a shipped recipe, such as small-cpu or phi3.5-mini-lora; "
        "an unknown name lists all of them.",
    ),
]
Model = Annotated[
    str | None,
    Option(metavar="ID_OR_DIR", help="Hub id or model folder to start from (default: the recipe's)."),
]
Seed = Annotated[int, Option(metavar="N", help="Random seed of data order, dropout and new weights.")]


def train(
    *,
    data: Annotated[
        Path,
        Option(
            metavar="DIR_OR_FILE",
            help="Folder that `phi3flow prepare` wrote; for dpo and kto a file of preferences, such as "
            "`phi3flow feedback` writes.",
        ),
    ],
    recipe: Recipe,
    out: Annotated[Path, Option(metavar="DIR", help="Model folder to write; an interrupted run continues.")],
    model: Annotated[
        str | None,
        Option(
            metavar="ID_OR_DIR",
            help="Hub id or model folder to start from; for dpo and kto also a run folder, whose tuned/ is "
            "meant (default: the recipe's).",
        ),
    ] = None,
    method: Annotated[
        Literal["sft", "dpo", "kto"] | None,
        Option(
            help="sft: the answers of chats; dpo: which of two answers is better; kto: answers with a thumb "
            "(default: the recipe's)."
        ),
    ] = None,
    inspect: Annotated[
        int | None,
        Option(
            metavar="N", help="Show the first N rows token by token instead of training (default: train)."
        ),
    ] = None,
    seed: Seed = 0,
) -> Outcome:
    """Fine-tune a model on prepared chats; only assistant tokens count toward the loss.

    example: phi3flow train --data runs/mine/data --recipe small-cpu --model runs/mine/base --out runs/mine/tuned

    example: phi3flow train --method dpo --data preferences.jsonl --recipe dpo-lora --model runs/mine/tuned --out runs/mine-2/tuned
    """  # noqa: E501 - an example is one line
    from training.finetune import finetune
    from training.ranks import is_main_process, rank
    from training.recipes.recipe import load_recipe

    settings, loaded = Settings.load(), load_recipe(recipe, method)
    model = _starting(model, loaded)
    if inspect is not None:
        return _inspected(data, loaded, out, model, rows=inspect)
    with writing(out) if is_main_process() else nullcontext():
        trained = finetune(data, loaded, out, model=model, seed=seed)
        if model and loaded.learns_preferences and is_main_process():
            make_comparable(out, Path(model))
    if not is_main_process():
        return Outcome({"rank": rank()}, f"rank {rank()}: done; rank 0 writes {trained.folder}")
    if settings.track:
        from training.tracking.mlflow_run import track_if_possible

        track_if_possible(trained.folder, settings.runs)
    text = f"{trained.folder}: {_summary(trained.result)}\nnext: {_following(trained.folder)}"
    return Outcome(asdict(trained), text)


def _starting(model: str | None, recipe: "LoadedRecipe") -> str | None:
    """The model folder that is meant: preferences are about the answers of a run's tuned model."""
    if not model:
        return None
    tuned = Path(model) / TUNED.name
    if recipe.learns_preferences and (tuned / "config.json").is_file():
        return str(tuned)
    require_no_adapter(Path(model))
    return model


def _inspected(data: Path, recipe: "LoadedRecipe", out: Path, model: str | None, *, rows: int) -> Outcome:
    from training.inspection import inspect, inspect_preferences

    if not recipe.learns_preferences:
        shown = inspect(data, recipe, model=model, rows=rows)
        return Outcome({"inspection": shown}, shown)
    shown, plan = inspect_preferences(data, recipe, out, model=model, rows=rows)
    return Outcome({"inspection": shown, "plan": plan}, shown)


@one_writer
def toy_base(
    *,
    out: Annotated[Path, Option(metavar="DIR", help="Model folder to write.")],
    seed: Annotated[
        int, Option(metavar="N", help="Random seed of corpus, initial weights and training.")
    ] = 0,
) -> Outcome:
    """Train the demo's tiny base model from scratch; for real work, use a Phi.

    example: phi3flow toy-base --out runs/mine/base
    """
    from training.toy.corpus import make_base

    model = make_base(out, seed=seed)
    run = model.folder.parent
    text = (
        f"{model.folder}: validation loss {model.result.validation_loss:.3f}\n"
        f"next: {train_command(run / 'data', model.folder, run / 'tuned')}"
    )
    return Outcome(asdict(model), text)


def _summary(result: "Result") -> str:
    text = f"{result.steps} steps, validation loss {result.validation_loss:.3f}"
    if result.kept_step is not None and result.kept_step < result.steps:
        text += f" after step {result.kept_step}, whose weights are kept"
    if result.margin is not None:
        text += f", held-out margin {result.margin:+.3f} (0 before)"
    if result.accuracy is not None:
        text += f", accuracy {result.accuracy:.0%}"
    if result.changed_probes is not None:
        text += f", {result.changed_probes:.0%} of the probes answered differently than before"
    if result.weight_change is not None and result.changed_tensors is not None:
        text += f", weights moved by {result.weight_change:.2g} of their norm"
        text += f" ({result.changed_tensors:.0%} of the tensors)"
    for split, counts in (result.long_chats or {}).items():
        text += (
            f"\n{split}: {counts['long_chats']:,} of {counts['chats']:,} chats were longer than max_length"
        )
    if result.kept_step is not None and result.kept_step * 2 < result.steps:
        text += (
            f"\nValidation loss was lowest at step {result.kept_step}: the model is overfitting. "
            "Use fewer steps or more data."
        )
    return text


def _following(out: Path) -> str:
    """What tells whether a run folder's training was worth it; elsewhere, the endpoint."""
    compared = out.name == "tuned" and (out.parent / "base" / "config.json").is_file()
    return f"phi3flow compare {shlex.quote(str(out.parent))}" if compared else f"phi3flow serve {out}"
