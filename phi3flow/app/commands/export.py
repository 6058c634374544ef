"""`phi3flow export`: a model folder in the format of another runtime."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from phi3flow.app.commands.verify import AtLeast
from phi3flow.app.run_folder import require_model_folder
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.folder_lock import one_writer

if TYPE_CHECKING:
    from deploy.export.export import Exported, HeldOut


@one_writer
def export(
    model: Annotated[Path, Argument(metavar="MODEL", help="A model folder, such as train writes.")],
    *,
    format: Annotated[
        Literal["openvino", "gguf", "onnx", "adapter"],
        Option(
            help="openvino: our CPU engine. gguf: llama.cpp, Ollama, LM Studio. onnx: ONNX Runtime GenAI, "
            "Foundry Local. adapter: LoRA adapters for PEFT."
        ),
    ],
    out: Annotated[Path, Option(metavar="DIR", help="Folder to write.")],
    weights: Annotated[
        str | None,
        Option(
            metavar="W",
            help="openvino: fp32, int8, int4; gguf: f16, q8_0, q4_k_m; onnx: fp32, int4 (default: first).",
        ),
    ] = None,
    int4: Annotated[
        bool,
        Option(
            "--int4",
            help="As --weights int4; openvino stores 8 bits where 4 change too many answers, and says so.",
        ),
    ] = False,
    int8: Annotated[bool, Option("--int8", help="As --weights int8.")] = False,
    check: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Held-out chats that judge inexact weights by their exact answers (default: the first rows "
            "of the test.jsonl beside the training data).",
        ),
    ] = None,
    at_least: AtLeast = None,
) -> Outcome:
    """Convert a model for another runtime, and check through that runtime that it answers the same.

    example: phi3flow export runs/demo/tuned --format gguf --weights q4_k_m --out runs/demo/tuned-gguf

    The folder appears when all checks of phi3flow verify that can be made have passed.
    """
    from deploy.export.export import export
    from deploy.export.formats import FORMATS

    chosen = [*([weights] if weights else []), *(["int4"] if int4 else []), *(["int8"] if int8 else [])]
    if len(chosen) > 1:
        raise BadInput("--weights, --int4 and --int8 exclude each other", hint="phi3flow export --help")
    require_model_folder(model)
    exporter = FORMATS[format]
    stored_as = chosen[0] if chosen else None
    exported = export(model, out, exporter, weights=stored_as, held_out=_held_out(check, at_least))
    fell_back = "\nint4 changed too many answers: this is int8" if _fell_back(exported, stored_as) else ""
    return Outcome(
        asdict(exported) | {"checks": [each._asdict() for each in exported.checks]},
        f"{_told(exported)}{fell_back}\nnext: {exporter.next_step(exported.folder)}",
    )


def _held_out(check: Path | None, at_least: float | None) -> "HeldOut | None":
    from deploy.export.export import HeldOut

    if check is None and at_least is not None:
        raise BadInput("--at-least needs --check", hint="--check test.jsonl --at-least 0.95")
    if at_least is not None and not 0 <= at_least <= 1:
        raise BadInput("--at-least: must be a share from 0 to 1", hint="--at-least 0.95")
    return HeldOut(check, at_least) if check else None


def _fell_back(exported: "Exported", weights: str | None) -> bool:
    return weights == "int4" and exported.weights.mode == "int8"


def _told(exported: "Exported") -> str:
    stored = exported.weights
    groups = f", groups of {stored.group_size}" if stored.group_size else ""
    return "\n".join(
        [*map(str, exported.checks), f"{exported.folder}: {exported.format}, {stored.mode}{groups}"]
    )
