"""`phi3flow toy-base`: the base model of everything that runs without a model hub."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from phi3flow.core.console import Outcome


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
    from phi3flow.app.run_folder import train_command
    from training.toy.corpus import make_base

    model = make_base(out, seed=seed)
    run = model.folder.parent
    text = (
        f"{model.folder}: validation loss {model.result.validation_loss:.3f}\n"
        f"next: {train_command(run / 'data', model.folder, run / 'tuned')}"
    )
    return Outcome(asdict(model), text)
