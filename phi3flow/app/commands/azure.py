"""`phi3flow azure`: the cloud half, from nothing to traffic and back to zero cost."""

import argparse
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

SENTENCE = "Train, deploy and roll out in Azure Machine Learning; every step is a plan that can be run again."
EXAMPLE = "phi3flow azure provision --plan"
Run = Callable[[argparse.Namespace, Settings], Outcome]


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.epilog = "Where: PHI3FLOW_AZURE_SUBSCRIPTION, _RESOURCE_GROUP, _WORKSPACE and _REGION."
    steps = parser.add_subparsers(metavar="STEP", required=True, help=", ".join(STEPS))
    for name, (sentence, arguments, run_step) in STEPS.items():
        step = steps.add_parser(name, help=sentence.replace("%", "%%"), description=sentence)
        arguments(step, settings)
        if name != "status":
            step.add_argument("--plan", action="store_true", help="say what would be done; write nothing")
        step.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print one machine-readable object on stdout",
        )
        step.set_defaults(step=run_step)


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    """The SDK prints dots while it waits; stdout is for data alone."""
    step: Run = args.step
    with redirect_stdout(io.StringIO()):
        return step(args, settings)


def _out(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=settings.runs / "azure",
        metavar="DIR",
        help=f"the run's manifest and findings (default {settings.runs / 'azure'})",
    )


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=("gpu", "cpu"), default="gpu", help="one A100, or 16 CPU cores")
    parser.add_argument("--size", metavar="SIZE", help="another machine size than the profile's")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="at most so many machines")


def _asked_profile(args: argparse.Namespace) -> Any:
    from dataclasses import replace

    from deploy.azure.steps.sizes import profile

    if args.nodes < 1:
        raise BadInput("--nodes: must be at least 1", EXAMPLE)
    found = profile(args.profile)
    if not args.size:
        return found
    return replace(found, compute=f"{args.profile}-{args.size.split('_')[1].lower()[:20]}", size=args.size)


def _provision_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    _profile(parser)


def _provision(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.provision import WORKSPACE_API, provision_steps
    from deploy.azure.steps.arm import read
    from deploy.azure.steps.plan import carry_out
    from deploy.azure.steps.problems import explain
    from deploy.azure.steps.quota import quota_for, require
    from deploy.azure.steps.session import connect

    profile = _asked_profile(args)
    cloud = connect(settings)
    try:
        if read(cloud, cloud.names.compute_id(profile.compute), WORKSPACE_API) is None:
            quota = quota_for(cloud, profile.size, args.nodes)
            say(f"quota: {quota or 'Azure names none for ' + profile.size}")
            require(quota, cloud.names.region)
        steps = provision_steps(cloud, profile, args.nodes)
    except Exception as error:
        raise explain(error, "before any write", []) from error
    actions = carry_out(steps, plan=args.plan)
    return _planned(actions, args.plan, "phi3flow azure train --data DIR --recipe NAME")


def _planned(actions: list[Any], plan: bool, following: str, **data: Any) -> Outcome:
    from deploy.azure.steps.plan import as_data

    lines = [str(action) for action in actions]
    lines.append("a plan: nothing was written" if plan else f"next: {following}")
    return Outcome({"plan": plan, "actions": as_data(actions), **data}, "\n".join(lines))


def _train_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what phi3flow prepare wrote")
    parser.add_argument(
        "--recipe", required=True, metavar="NAME_OR_FILE", help="a shipped recipe or a TOML file"
    )
    parser.add_argument("--model", metavar="ID_OR_DIR", help="hub id or model folder to start from")
    parser.add_argument("--seed", type=int, default=0, help="of the data order, dropout and new weights")
    _profile(parser)
    _out(parser, settings)


def _train(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.session import connect
    from deploy.azure.train import Training, train
    from training.recipes.recipe import load_recipe

    load_recipe(args.recipe)
    asked = Training(args.data, args.recipe, args.model, args.seed, args.nodes, _asked_profile(args))
    cloud = connect(settings)
    actions, job = train(cloud, asked, args.out, plan=args.plan, ask_to_cancel=_ask_to_cancel)
    return _planned(actions, args.plan, f"phi3flow azure deploy --out {args.out}", job=job)


def _ask_to_cancel() -> bool:
    if not sys.stdin.isatty():
        return False
    print("cancel the job in Azure, too? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _deploy_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--base", action="store_true", help="the base, on its own endpoint, to compare with")
    parser.add_argument(
        "--engine", choices=("openvino", "vllm"), default="vllm", help="on a CPU, or on a GPU (default)"
    )
    parser.add_argument("--size", metavar="SIZE", help="another machine size than the engine's")
    parser.add_argument(
        "--auth", choices=("key", "entra"), default="key", help="who may ask: key, or an Entra token"
    )
    parser.add_argument("--days", type=int, metavar="N", help="until the endpoint expires (default 3)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="test.jsonl: serve int4, judged by its exact match"
    )
    parser.add_argument(
        "--exact-match", type=float, metavar="X", help="of the fp32 model on --data, such as 0.97"
    )
    _out(parser, settings)


def _deploy(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.deploy import Serving, deploy
    from deploy.azure.steps.session import connect
    from deploy.azure.steps.sizes import serving_size

    size = args.size or serving_size(args.engine)
    asked = Serving(
        args.base, args.engine, size, args.auth, args.days, _reference(args), settings.batch_workers
    )
    cloud = connect(settings)
    actions, found = deploy(cloud, asked, args.out, plan=args.plan, ask_to_cancel=_ask_to_cancel)
    extend = (
        f"phi3flow azure deploy{' --base' if args.base else ''} --engine {args.engine} --days N extends it"
    )
    name = "phi3-base" if args.base else "phi3-tuned"
    following = f"phi3flow connect {name} --azure" + (
        "" if args.base or found is None else f" --deployment {found.deployment}"
    )
    say(extend)
    return _planned(actions, args.plan, following, deployed=vars(found) if found else None)


def _reference(args: argparse.Namespace) -> Any:
    from deploy.verify.exact_match import Reference

    if (args.data is None) != (args.exact_match is None):
        raise BadInput(
            "--data and --exact-match belong together", "phi3flow azure deploy --data F --exact-match X"
        )
    return Reference(args.data, args.exact_match) if args.data else None


def _promote_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "--to", choices=("10", "mirror", "100"), default="100", help="percent of the traffic (default 100)"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="of the comparison (default OUT/comparison/report.json)"
    )
    _out(parser, settings)


def _promote(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.rollout import promotion, require_promotion

    report = args.report or args.out / "comparison" / "report.json"
    require_promotion(report, args.out / "verify-tuned.json")
    return _traffic(args, settings, lambda cloud, name: promotion(cloud, name, args.to))


def _rollback_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    _out(parser, settings)


def _rollback(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.rollout import reversal

    return _traffic(args, settings, reversal)


def _traffic(args: argparse.Namespace, settings: Settings, wanted: Callable[[Any, str], Any]) -> Outcome:
    from deploy.azure.steps.plan import carry_out
    from deploy.azure.steps.problems import explain
    from deploy.azure.steps.record import record
    from deploy.azure.steps.session import connect

    cloud = connect(settings)
    try:
        step = wanted(cloud, cloud.names.endpoint("phi3-tuned"))
    except Exception as error:
        raise explain(error, "traffic", []) from error
    actions = carry_out([step], plan=args.plan)
    if not args.plan:
        record(args.out, "traffic", {"endpoint": step.endpoint, "traffic": step.traffic})
    return _planned(actions, args.plan, "phi3flow azure status", traffic=step.traffic)


def _status_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    pass


def _status(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.status import status
    from deploy.azure.steps.problems import explain
    from deploy.azure.steps.session import connect

    cloud = connect(settings)
    try:
        found = status(cloud)
    except Exception as error:
        raise explain(error, "status", []) from error
    return Outcome(found.as_dict(), str(found))


def _teardown_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--expired", action="store_true", help="only endpoints whose day has passed")
    some.add_argument("--old", action="store_true", help="only deployments that take no traffic")


def _teardown(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.session import connect
    from deploy.azure.teardown import teardown

    what: Any = "expired" if args.expired else "old" if args.old else "everything"
    removals = teardown(connect(settings), what, plan=args.plan)
    left = [f"{one.kind} {one.name}" for one in removals if one.do == "keep"]
    lines = [*map(str, removals), "a plan: nothing was deleted" if args.plan else f"left: {len(left)}"]
    data = {"plan": args.plan, "removals": [one._asdict() for one in removals], "left": left}
    return Outcome(data, "\n".join(lines))


STEPS: dict[str, tuple[str, Callable[[argparse.ArgumentParser, Settings], None], Run]] = {
    "provision": (
        "Make the workspace, what it stands on, an identity and a cluster.",
        _provision_arguments,
        _provision,
    ),
    "train": ("Run phi3flow train as a job, and fetch what verify needs.", _train_arguments, _train),
    "deploy": (
        "Serve the trained model at 0 % of the traffic, and verify it there.",
        _deploy_arguments,
        _deploy,
    ),
    "promote": (
        "Give the verified deployment traffic, if the comparison says promote.",
        _promote_arguments,
        _promote,
    ),
    "rollback": ("Give the traffic back to what was live before.", _rollback_arguments, _rollback),
    "status": ("Say what exists, what it serves, costs and expires.", _status_arguments, _status),
    "teardown": ("Delete what phi3flow made, and say what was left.", _teardown_arguments, _teardown),
}
