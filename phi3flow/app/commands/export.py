"""Write a model folder in a serving format."""

import argparse
from pathlib import Path

from phi3flow.app.model_folder import require_model_folder
from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

SENTENCE = (
    "Convert a model folder to a faster serving format, and check that it still gives the same answers."
)
EXAMPLE = "phi3flow export runs/demo/tuned --format openvino --out runs/demo/tuned-openvino"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, such as train writes")
    parser.add_argument("--format", choices=["openvino"], required=True, help="openvino: for CPUs")
    parser.add_argument(
        "--int4",
        action="store_true",
        help="weights in 4 bits, or in 8 where 4 change too many answers; the output says which",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    require_model_folder(args.model)
    from deploy.export.openvino import as_dict, export_openvino

    exported = export_openvino(args.model, args.out, int4=args.int4)
    mode, group_size, agreement = exported.weights
    stored = f"{mode}, groups of {group_size}" if group_size else mode
    checked = (
        f"{agreement:.1%} of the tokens of {exported.probes} answers unchanged"
        if args.int4
        else f"the same answers to {exported.probes} prompts"
    )
    fell_back = "\nint4 changed too many answers: this is int8" if args.int4 and mode == "int8" else ""
    return Outcome(
        as_dict(exported),
        f"{exported.folder}: {stored}; {checked}{fell_back}\nnext: phi3flow serve {exported.folder}",
    )
