"""`phi3flow foundry finetune`: the model catalog's fine-tuning."""

import argparse
from pathlib import Path

from phi3flow.app.commands.foundry.common import planned
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.settings import Settings


def finetune_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what phi3flow prepare wrote")
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME:VERSION",
        help="of the catalog: Phi-3-mini-4k-instruct:11",
    )
    parser.add_argument("--learning-rate", type=float, default=5e-6, metavar="X", help="default 5e-6")
    parser.add_argument("--scheduler", metavar="NAME", default="cosine", help="lr_scheduler_type (cosine)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--profile", choices=("gpu", "cpu"), default="gpu", help="the cluster it runs on")
    default = settings.runs / "azure"
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"the run's manifest (default {default})"
    )


def finetune(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.session import connect
    from deploy.azure.steps.sizes import profile
    from deploy.foundry.catalog import finetune
    from deploy.foundry.catalog_jobs import SCHEDULERS, CatalogTraining
    from deploy.foundry.problems import explained

    if args.scheduler not in SCHEDULERS:
        raise BadInput(f"--scheduler: unknown '{args.scheduler}'", nearest(args.scheduler, SCHEDULERS))
    asked = CatalogTraining(
        args.data, args.model, args.learning_rate, args.scheduler, args.epochs, profile(args.profile)
    )
    asked.asset  # noqa: B018 - says what is wrong with --model before anybody logs in
    with explained("fine-tuning from the catalog"):
        actions, job = finetune(connect(settings), asked, args.out, plan=args.plan)
    return planned(actions, args.plan, f"phi3flow azure deploy --out {args.out}", job=job)
