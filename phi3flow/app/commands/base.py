"""Make the embedded base model."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

SENTENCE = "Train the embedded tiny Phi-3 from scratch: the base model of everything that runs without a hub."
EXAMPLE = "phi3flow base --out runs/mine/base"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus and the weights")


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from training.toy.base import make_base

    model = make_base(args.out, seed=args.seed)
    text = f"{model.folder}: validation loss {model.result.validation_loss:.3f}"
    run = model.folder.parent
    data, base, tuned = (shlex.quote(str(path)) for path in (run / "data", model.folder, run / "tuned"))
    train = f"phi3flow train --data {data} --recipe tiny-cpu --model {base} --out {tuned}"
    return Outcome(asdict(model), f"{text}\nnext: {train}")
