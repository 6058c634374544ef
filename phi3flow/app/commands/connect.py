"""`phi3flow connect`: store an endpoint as a Prompt flow custom connection."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from custom_connections.store import configs_of, store_connection, template
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import (
    CONTRACTS,
    Endpoint,
    EndpointError,
    Garbled,
    Rejected,
    Sampling,
    Unauthorized,
    WrongContract,
)

if TYPE_CHECKING:
    from deploy.azure.shared.session import Cloud

HELLO = [{"role": "user", "content": "Hello"}]
FIRST_SECONDS = 15.0  # to wait for the first answer

Contract = Annotated[
    str | None,
    Option(
        metavar="C",
        help="A, B, openai or promptflow (default: openai for a URL with /v1 or /chat/completions, else B).",
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
    with checked_arguments(name):
        if azure:
            if endpoint:
                raise BadInput("--azure finds the endpoint itself", f"phi3flow connect {name} --azure")
            found = endpoint_in_azure(name, connect_to_azure(settings), deployment)
            described = replace(found, **given(contract=contract, model=model, timeout=timeout))
        else:
            asked = given(contract=contract, model=model, deployment=deployment, timeout=timeout)
            described = replace(endpoint_at(name, endpoint, settings), **asked)
    enter_home(settings)
    problem = first_answer(name, described)
    store_connection(name, described)
    text = f"stored {name}: {described.url}, contract {described.contract}"
    if problem:
        say(f"note: {name} gives no answer yet: {problem}")
    return Outcome({"name": name, **configs_of(described), "answers": not problem}, text)


def first_answer(name: str, endpoint: Endpoint) -> str:
    """Ask for one token. Why there is no answer yet, or ''; an endpoint may be connected before it runs.

    Raises Phi3flowError where no waiting would help: a wrong key, an unknown model, another contract.
    """
    try:
        replace(endpoint, timeout=min(endpoint.timeout, FIRST_SECONDS)).complete(
            HELLO, Sampling(max_tokens=1)
        )
    except (Unauthorized, Rejected, Garbled) as error:
        raise Phi3flowError(f"{name} is not stored: {error}", _hint(error)) from None
    except EndpointError as error:
        return str(error)
    return ""


def _hint(error: EndpointError) -> str:
    if isinstance(error, Unauthorized):
        return "export PHI3FLOW_ENDPOINT_KEY=..., the key of this endpoint, and connect again"
    if isinstance(error, Garbled | WrongContract):
        return f"correct --endpoint, or choose a --contract: {', '.join(CONTRACTS)}"
    return "--model NAME, if it is about the model; else change what the endpoint names"


def contract_of(url: str) -> str:
    """The contract that is spoken at `url`, as far as the path tells: openai below a /v1, else B."""
    steps = urlsplit(url).path.split("/")
    return "openai" if "v1" in steps or steps[-2:] == ["chat", "completions"] else "B"


def completed(url: str) -> str:
    """`url` without a slash at its end; where the base of OpenAI's API is given, with its route."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    base, _, route = path.rpartition("/")
    if route == "v1":
        path = f"{path}/chat/completions"
    elif base.endswith("/v1") and route in {"chat", "completions", "models"}:
        path = f"{base}/chat/completions"
    return urlunsplit(parts._replace(path=path))


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def checked_arguments(name: str = "NAME") -> Iterator[None]:
    """Turn a URL or a contract that no Endpoint can have into BadInput: no request failed yet."""
    try:
        yield
    except Rejected as error:
        raise BadInput(str(error), error.hint.replace(" NAME ", f" {name} ")) from None
    except ValueError:  # of urllib, for http://[
        raise BadInput("the endpoint is not an http(s) URL", "give the full scoring URL") from None


def endpoint_at(name: str, url: str | None, settings: Settings) -> Endpoint:
    """The endpoint at a URL, or that of NAME on this machine. Asks for a key that is not set."""
    key = settings.endpoint_key or _asked_key(name)
    if not url:
        return template(name, key)
    full = completed(url)
    return Endpoint(full, key, contract_of(full))


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
