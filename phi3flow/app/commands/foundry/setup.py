"""`phi3flow foundry` create, connect, upload, list and delete: what stands in a project."""

import argparse
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from phi3flow.app.commands.connect import asked_key, endpoint_arguments
from phi3flow.app.commands.foundry.common import asked_target, planned
from phi3flow.app.given_endpoint import contract_of
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from deploy.foundry.target import Target
    from phi3flow.phi3_contract import Endpoint

CONNECTIONS = ("phi3-base", "phi3-tuned")


def create(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.plan import carry_out
    from deploy.foundry.problems import explained
    from deploy.foundry.project import project_steps
    from deploy.foundry.target import target_of

    target = target_of(settings, workspace=False)
    with explained("before any write"):
        steps = project_steps(target.endpoints)
    return planned(carry_out(steps, plan=args.plan), args.plan, "phi3flow foundry connect")


def connect_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which connections (default {' and '.join(CONNECTIONS)})"
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="any endpoint's full scoring URL; default: the one that phi3flow azure deploy made for NAME",
    )
    endpoint_arguments(parser)
    parser.epilog = "The key of --endpoint comes from PHI3FLOW_ENDPOINT_KEY or a prompt."


def connect(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.plan import carry_out
    from deploy.foundry.connections import FlowConnection
    from deploy.foundry.problems import explained

    names = args.names or list(CONNECTIONS)
    if args.endpoint and len(names) != 1:
        raise BadInput("--endpoint belongs to one NAME", "phi3flow foundry connect phi3-tuned --endpoint URL")
    target = asked_target(args, settings)
    with explained("the project"):
        target.require()
    wanted = {name: _endpoint(name, target, args, settings) for name in names}
    steps = [FlowConnection(target.cloud, name, endpoint) for name, endpoint in wanted.items()]
    actions = carry_out(steps, plan=args.plan)
    if not args.plan:
        with explained("the connections"):
            _try(target, names)
    return planned(actions, args.plan, "phi3flow foundry upload")


def _endpoint(name: str, target: "Target", args: argparse.Namespace, settings: Settings) -> "Endpoint":
    from deploy.azure.steps.serving import ask_at
    from deploy.foundry.problems import explained
    from phi3flow.phi3_contract import Endpoint

    given = {field: getattr(args, field) for field in ("contract", "model", "deployment", "timeout")}
    given = {field: value for field, value in given.items() if value is not None}
    if args.endpoint:
        return replace(
            Endpoint(args.endpoint, settings.endpoint_key or asked_key(name), contract_of(args.endpoint)),
            **given,
        )
    cloud = target.endpoints
    with explained(f"endpoint of {name}"):
        found = ask_at(cloud, cloud.names.endpoint(name), given.pop("deployment", None))
    return replace(found, **given)


def _try(target: "Target", names: list[str]) -> None:
    """One short question through each connection, as it reads back."""
    from deploy.foundry.connections import as_flows_read_it
    from evaluation.asking.batch import PREFLIGHT
    from phi3flow.phi3_contract import EndpointError, Sampling

    for name in names:
        try:
            as_flows_read_it(target.cloud, name).complete(PREFLIGHT, Sampling(max_tokens=1))
        except EndpointError as error:
            raise Phi3flowError(f"connection {name} is stored, but {error}", error.hint) from None


def upload_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "flows", nargs="*", metavar="FLOW", help="chat, grade, compare (default: all three) or flow folders"
    )


def upload(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.steps.plan import carry_out
    from deploy.foundry.connections import as_flows_read_it
    from deploy.foundry.flows import FlowUpload, resolved
    from deploy.foundry.problems import explained
    from phi3flow.core.flow_folder import FLOWS, connections_of

    with ExitStack() as stack:
        flows = [stack.enter_context(resolved(asked)) for asked in args.flows or FLOWS]
        target = asked_target(args, settings)
        urls: dict[str, str] = {}
        needed = {name for flow in flows for name in connections_of(flow.folder)}
        with explained("the connections of the flows"):
            target.require()
            for name in sorted(needed):
                as_flows_read_it(target.cloud, name)
        actions = carry_out([FlowUpload(target, flow, urls=urls) for flow in flows], plan=args.plan)
    return planned(actions, args.plan, 'phi3flow foundry chat "QUESTION"', urls=urls)


def list_all(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.overview import as_data, as_table, listing
    from deploy.foundry.problems import explained

    target = asked_target(args, settings)
    with explained("list"):
        found = listing(target)
    return Outcome({"target": target.name, "found": as_data(found)}, as_table(found))


def delete(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.overview import delete
    from deploy.foundry.problems import explained

    target = asked_target(args, settings)
    with explained("delete"):
        removals = delete(target, plan=args.plan)
    left = [f"{one.kind} {one.name}" for one in removals if one.do == "keep"]
    lines = [*map(str, removals), "a plan: nothing was deleted" if args.plan else f"left: {len(left)}"]
    data = {"plan": args.plan, "removals": [one._asdict() for one in removals], "left": left}
    return Outcome(data, "\n".join(lines))
