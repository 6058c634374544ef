"""Fine-tune a model by a recipe."""

import argparse
from dataclasses import asdict
from pathlib import Path

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings
from training.recipes.recipe import recipe_names

SENTENCE = "Fine-tune a model on prepared chats, with loss on the assistant's tokens only."
EXAMPLE = (
    "phi3flow train --data runs/mine/data --recipe tiny-cpu --model runs/mine/base --out runs/mine/tuned"
)


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what phi3flow prepare wrote")
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME_OR_FILE",
        help="a TOML file, or a shipped recipe: " + ", ".join(recipe_names()),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--model", metavar="ID_OR_DIR", help="hub id or model folder to start from")
    parser.add_argument(
        "--inspect", type=int, metavar="N", help="show the first N chats token by token, and train nothing"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data order, dropout and new weights")


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from training.finetune import finetune
    from training.ranks import leads, rank
    from training.recipes.recipe import load_recipe

    if args.inspect is not None:
        from training.inspection import inspect

        shown = inspect(args.data, load_recipe(args.recipe), model=args.model, rows=args.inspect)
        return Outcome({"inspection": shown}, shown)
    model = finetune(args.data, load_recipe(args.recipe), args.out, model=args.model, seed=args.seed)
    if not leads():
        return Outcome({"rank": rank()}, f"rank {rank()}: done; rank 0 writes {model.folder}")
    from training.tracking.mlflow_run import track_once

    track_once(model.folder, settings.runs)
    result = model.result
    text = f"{model.folder}: {result.steps} steps, validation loss {result.validation_loss:.3f}"
    if result.kept_step is not None and result.kept_step < result.steps:
        text += f" after step {result.kept_step}, whose weights are kept"
    if result.changed_probes is not None:
        text += f", {result.changed_probes:.0%} of the probes answered differently than before"
    if result.weight_change is not None and result.changed_tensors is not None:
        text += f", weights moved by {result.weight_change:.2g} of their norm"
        text += f" ({result.changed_tensors:.0%} of the tensors)"
    if result.kept_step is not None and result.kept_step * 2 < result.steps:
        text += (
            "\nfrom there on it learned its chats by heart: fewer steps, or more chats, would serve it better"
        )
    return Outcome(asdict(model), f"{text}\nnext: {_following(model.folder)}")


def _following(out: Path) -> str:
    """In a run's folder with its base beside it, what the training was worth; elsewhere, the endpoint."""
    compared = out.name == "tuned" and (out.parent / "base" / "config.json").is_file()
    return f"phi3flow compare {out.parent}" if compared else f"phi3flow serve {out}"
