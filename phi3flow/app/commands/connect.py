"""`phi3flow connect`: store an endpoint as a Prompt flow custom connection."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from phi3flow.app.given_endpoint import checked_arguments, contract_of
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from phi3flow.phi3_contract import Endpoint

SENTENCE = "Store an endpoint and its key as an encrypted Prompt flow connection."
EXAMPLE = "phi3flow connect phi3-tuned --endpoint http://127.0.0.1:5001/score --contract B"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("name", metavar="NAME", help="the flows use phi3-base and phi3-tuned")
    parser.add_argument(
        "--endpoint", metavar="URL", help="full scoring URL; phi3-base and phi3-tuned default to this machine"
    )
    parser.add_argument(
        "--azure",
        action="store_true",
        help="address and key of the endpoint that phi3flow azure deploy made for NAME",
    )
    endpoint_arguments(parser)
    parser.epilog = "The key comes from PHI3FLOW_ENDPOINT_KEY or a prompt, never from the command line."


def endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """What an endpoint is told by beside its address; `foundry connect` takes the same."""
    parser.add_argument(
        "--contract",
        metavar="C",
        help="A, B, openai or promptflow (default: openai for a URL that ends in /chat/completions, else B)",
    )
    parser.add_argument("--model", metavar="M", help="the model to ask for, where an endpoint has several")
    parser.add_argument("--deployment", metavar="D", help="pin one deployment behind an Azure ML endpoint")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="seconds for one answer with its retries (default 60)"
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from custom_connections.promptflow_home import enter_home
    from custom_connections.store import configs_of, store_connection

    with checked_arguments():
        endpoint = _described(args, settings)
    enter_home(settings)
    store_connection(args.name, endpoint)
    shown = configs_of(endpoint)
    return Outcome(
        {"name": args.name, **shown}, f"stored {args.name}: {endpoint.url}, contract {endpoint.contract}"
    )


def _described(args: argparse.Namespace, settings: Settings) -> "Endpoint":
    from custom_connections.store import template
    from phi3flow.phi3_contract import Endpoint

    given = {name: getattr(args, name) for name in ("contract", "model", "deployment", "timeout")}
    if args.azure:
        endpoint = _in_azure(args, settings)
        del given["deployment"]  # the endpoint knows which one was meant
    else:
        key = settings.endpoint_key or asked_key(args.name)
        packaged = None if args.endpoint else template(args.name, key)
        endpoint = packaged or Endpoint(args.endpoint, key, contract_of(args.endpoint))
    return replace(endpoint, **{name: value for name, value in given.items() if value is not None})


def _in_azure(args: argparse.Namespace, settings: Settings) -> "Endpoint":
    """The key is fetched now, and goes nowhere but into the encrypted connection."""
    from deploy.azure.steps.problems import explain
    from deploy.azure.steps.serving import ask_at
    from deploy.azure.steps.session import connect

    if args.endpoint:
        raise BadInput("--azure finds the endpoint itself", f"phi3flow connect {args.name} --azure")
    cloud = connect(settings)
    try:
        return ask_at(cloud, cloud.names.endpoint(args.name), args.deployment)
    except Exception as error:
        raise explain(error, f"endpoint of {args.name}", []) from error


def asked_key(name: str) -> str:
    """From the terminal, unseen. Raises BadInput where there is none."""
    from getpass import getpass

    if not sys.stdin.isatty():
        raise BadInput(
            f"no key for '{name}'", hint='export PHI3FLOW_ENDPOINT_KEY=... (or eval "$(phi3flow env)")'
        )
    return getpass(f"key of {name}: ")
