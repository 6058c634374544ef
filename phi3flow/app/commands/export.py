"""`phi3flow export`: a model folder in a serving format."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from phi3flow.app.run_folder import require_model_folder
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.folder_lock import one_writer


@one_writer
def export(
    model: Annotated[Path, Argument(metavar="MODEL", help="A model folder, such as train writes.")],
    *,
    format: Annotated[Literal["openvino"], Option(help="The only one so far: openvino, for CPUs.")],
    out: Annotated[Path, Option(metavar="DIR", help="Model folder to write.")],
    int4: Annotated[
        bool,
        Option(
            "--int4",
            help="Store weights in 4 bits, or in 8 where 4 change too many answers; the output says which.",
        ),
    ] = False,
    int8: Annotated[bool, Option("--int8", help="Store weights in 8 bits.")] = False,
) -> Outcome:
    """Convert a model to a faster serving format, and check that it answers the same.

    example: phi3flow export runs/demo/tuned --format openvino --out runs/demo/tuned-openvino
    """
    from deploy.export.openvino import export_openvino

    if int4 and int8:
        raise BadInput("--int4 and --int8 exclude each other", hint="phi3flow export --help")
    require_model_folder(model)
    exported = export_openvino(model, out, bits="int4" if int4 else "int8" if int8 else None)
    weights = exported.weights
    stored = f"{weights.mode}, groups of {weights.group_size}" if weights.group_size else weights.mode
    checked = (
        f"{weights.agreement:.1%} of the tokens of {exported.probes} answers unchanged"
        if int4 or int8
        else f"the same answers to {exported.probes} prompts"
    )
    fell_back = "\nint4 changed too many answers: this is int8" if int4 and weights.mode == "int8" else ""
    return Outcome(
        asdict(exported),
        f"{exported.folder}: {stored}; {checked}{fell_back}\nnext: phi3flow serve {exported.folder}",
    )
