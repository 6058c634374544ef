"""`phi3flow connect`: store an endpoint as a Prompt flow custom connection."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from custom_connections.store import configs_of, store_connection, template
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import Endpoint, Rejected

if TYPE_CHECKING:
    from deploy.azure.shared.session import Cloud

Contract = Annotated[
    str | None,
    Option(
        metavar="C",
        help="A, B, openai or promptflow (default: openai for a URL that ends in /chat/completions, else B).",
    ),
]
Model = Annotated[
    str | None, Option(metavar="M", help="Model to ask for, if the endpoint has several (default: none).")
]
Deployment = Annotated[
    str | None, Option(metavar="D", help="Pin one deployment behind an Azure ML endpoint (default: none).")
]
Timeout = Annotated[
    float | None, Option(metavar="S", help="Seconds for one answer with its retries (default: 60).")
]


def connect(
    name: Annotated[str, Argument(metavar="NAME", help="The flows use phi3-base and phi3-tuned.")],
    *,
    endpoint: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Full scoring URL (default: for phi3-base and phi3-tuned, their ports on this machine).",
        ),
    ] = None,
    azure: Annotated[
        bool,
        Option(
            "--azure", help="Take address and key of the endpoint that `phi3flow azure deploy` made for NAME."
        ),
    ] = False,
    contract: Contract = None,
    model: Model = None,
    deployment: Deployment = None,
    timeout: Timeout = None,
) -> Outcome:
    """Store an endpoint and its key as an encrypted Prompt flow connection.

    example: phi3flow connect phi3-tuned --endpoint http://127.0.0.1:5001/score --contract B

    The key comes from PHI3FLOW_ENDPOINT_KEY or a prompt, never from the command line.
    """
    from deploy.azure.shared.session import connect as connect_to_azure

    settings = Settings.load()
    with checked_arguments():
        if azure:
            if endpoint:
                raise BadInput("--azure finds the endpoint itself", f"phi3flow connect {name} --azure")
            found = endpoint_in_azure(name, connect_to_azure(settings), deployment)
            described = replace(found, **given(contract=contract, model=model, timeout=timeout))
        else:
            asked = given(contract=contract, model=model, deployment=deployment, timeout=timeout)
            described = replace(endpoint_at(name, endpoint, settings), **asked)
    enter_home(settings)
    store_connection(name, described)
    text = f"stored {name}: {described.url}, contract {described.contract}"
    return Outcome({"name": name, **configs_of(described)}, text)


def contract_of(url: str) -> str:
    """The contract that is spoken at `url`, as far as the path tells."""
    return "openai" if url.endswith("/chat/completions") else "B"


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def checked_arguments() -> Iterator[None]:
    """Turn a URL or a contract that no Endpoint can have into BadInput: no request failed yet."""
    try:
        yield
    except Rejected as error:
        raise BadInput(str(error), error.hint) from None


def endpoint_at(name: str, url: str | None, settings: Settings) -> Endpoint:
    """The endpoint at a URL, or that of NAME on this machine. Asks for a key that is not set."""
    key = settings.endpoint_key or _asked_key(name)
    packaged = None if url else template(name, key)
    return packaged or Endpoint(url or "", key, contract_of(url or ""))


def endpoint_in_azure(name: str, cloud: "Cloud", deployment: str | None) -> Endpoint:
    """The key is fetched now, and goes nowhere but into the encrypted connection."""
    from deploy.azure.shared.problems import explaining
    from deploy.azure.shared.serving import ask_at

    with explaining(f"endpoint of {name}"):
        return ask_at(cloud, cloud.names.endpoint(name), deployment)


def _asked_key(name: str) -> str:
    """From the terminal, unseen. Raises BadInput where there is none."""
    if not sys.stdin.isatty():
        hint = 'export PHI3FLOW_ENDPOINT_KEY=... (or eval "$(phi3flow env)")'
        raise BadInput(f"no key for '{name}'", hint=hint)
    return getpass(f"key of {name}: ")
