"""`phi3flow promote`: the chat app serves an improved model from now on, or the former one again."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from phi3flow.app.improvement import latest_improvement
from phi3flow.app.promotion import promote_improvement, undo_promotion
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.served_model import improvement_folder
from phi3flow.core.sides import TUNED


def promote(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder that `phi3flow up` serves.")],
    *,
    improvement: Annotated[
        int | None, Option(metavar="N", help="The one in RUN/improve/N (default: the newest).")
    ] = None,
    because: Annotated[
        str,
        Option(
            metavar="TEXT",
            help="Serve it although the verdict is not promote; your reason is kept "
            "(default: the verdict decides).",
        ),
    ] = "",
    undo: Annotated[bool, Option("--undo", help="Serve the former model again.")] = False,
) -> Outcome:
    """Serve an improved model in the chat app, if its comparison says promote; --undo takes it back.

    example: phi3flow promote runs/mine

    example: phi3flow promote runs/mine --undo

    A running `phi3flow up` takes the other model at once. No model is deleted.
    """
    if undo:
        former = undo_promotion(run)
        return Outcome({"serves": str(former)}, f"{run} serves {former} again")
    number = improvement or _newest(run)
    made = promote_improvement(run, number, because)
    model = improvement_folder(run, number) / TUNED.name
    text = f"{run} serves {model} now\nundo: phi3flow promote {shlex.quote(str(run))} --undo"
    return Outcome({"serves": str(model), **made._asdict()}, text)


def _newest(run: Path) -> int:
    latest = latest_improvement(run)
    if latest is None:
        raise BadInput(f"{run}: no improvement to promote", hint=f"phi3flow improve {shlex.quote(str(run))}")
    return latest.number
