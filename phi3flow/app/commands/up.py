"""`phi3flow up`: the endpoints, served chat flows and pages of a run, until Ctrl-C."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi3flow.app.run_folder import require_model
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from phi3flow.core.processes import Service

SENTENCE = "Chat with a run's tuned model in the browser; one Ctrl-C stops everything."
EXAMPLE = "phi3flow up runs/demo --arena"
LOOPBACK, ANYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - allowed with a login only


class Served(NamedTuple):
    """One model of the run: where it is served, where its flow is, and the settings that choose the ports."""

    model: str
    port: int
    flow_port: int
    setting: str
    flow_setting: str


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=settings.runs / "demo",
        metavar="RUN",
        help=f"run folder whose tuned/ to serve (default {settings.runs / 'demo'})",
    )
    parser.add_argument(
        "--arena", action="store_true", help="serve base/ too, and vote between the two without their names"
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"{LOOPBACK} (default), or {ANYWHERE} for other machines, which needs a login: docs/chat.md",
    )


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    """Ends by Ctrl-C (130) or by the death of a service (1)."""
    from tempfile import TemporaryDirectory

    from phi3flow.core.processes import Stack, require_free_ports

    served = _served(settings, args.arena)
    _check(args.folder, served, args.host, settings)
    logs = args.folder / "up"
    logs.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="promptflow-", dir=logs) as scratch:
        secrets = new_secrets(Path(scratch))
        services = _services(args, served, Path(scratch), secrets, settings)
        require_free_ports(services)
        _prepare(Path(scratch), served, secrets)
        with Stack(*services) as stack:
            say(_ready(served, settings))
            stack.wait()


def _served(settings: Settings, arena: bool) -> list[Served]:
    tuned = Served("tuned", settings.endpoint_port, settings.flow_port, "endpoint_port", "flow_port")
    base = Served("base", settings.base_port, settings.base_flow_port, "base_port", "base_flow_port")
    return [tuned, base] if arena else [tuned]


def _check(folder: Path, served: list[Served], host: str, settings: Settings) -> None:
    """Raise BadInput for a model that is not there, or a page that anyone could open."""
    for each in served:
        require_model(folder, each.model, "phi3flow demo" if folder == settings.runs / "demo" else "")
    if host == LOOPBACK:
        return
    from ui.login import HOW_TO, login_problem

    if host != ANYWHERE:
        raise BadInput(f"--host {host}: not an address for this page", hint=f"{LOOPBACK} or {ANYWHERE}")
    if problem := login_problem():
        raise BadInput(f"--host {host} needs a login: {problem}", hint=HOW_TO)


def new_secrets(scratch: Path) -> dict[str, str]:
    """Both keys of this one `up`, and the variables that select its Prompt flow home: for children only."""
    from secrets import token_urlsafe

    from custom_connections.promptflow_home import environment, new_encryption_key

    home = scratch / "home"
    return {
        **environment(home, new_encryption_key()),
        "PHI3FLOW_PROMPTFLOW_HOME": str(home),
        "PHI3FLOW_ENDPOINT_KEY": token_urlsafe(32),
    }


def _services(
    args: argparse.Namespace,
    served: list[Served],
    scratch: Path,
    secrets: Mapping[str, str],
    settings: Settings,
) -> "list[Service]":
    from phi3flow.app.services import chat_page, scoring_endpoint, served_flow

    logs, key = args.folder / "up", secrets["PHI3FLOW_ENDPOINT_KEY"]
    services = []
    for each in served:
        model, log = args.folder / each.model, logs / f"endpoint-{each.model}.log"
        services.append(scoring_endpoint(model, each.port, each.setting, key, log))
        flow, log = scratch / each.model, logs / f"flow-{each.model}.log"
        services.append(served_flow(flow, each.flow_port, each.flow_setting, secrets, log))
    page = chat_page(args.folder, settings, logs / "page.log", arena=args.arena, host=args.host)
    return [*services, page]


def _prepare(scratch: Path, served: list[Served], secrets: Mapping[str, str]) -> None:
    """A chat flow and a connection for each model, stored in a child: only children have the keys."""
    import sys

    from phi3flow.app.services import openai_url
    from phi3flow.core.flow_folder import resolve_flow
    from phi3flow.core.processes import finish

    for each in served:
        connection = f"phi3-{each.model}"
        resolve_flow("chat", scratch / each.model, connection=connection)
        connect = [sys.executable, "-m", "phi3flow", "connect", connection]
        finish([*connect, "--endpoint", openai_url(each.port), "--contract", "openai"], environment=secrets)


def _ready(served: list[Served], settings: Settings) -> str:
    lines = ["", f"  chat page        http://127.0.0.1:{settings.ui_port}"]
    for each in served:
        lines += [
            f"  {each.model + ' flow':16} http://127.0.0.1:{each.flow_port}/score",
            f"  {each.model + ' endpoint':16} http://127.0.0.1:{each.port}/v1/chat/completions",
        ]
    return "\n".join(
        [
            *lines,
            "",
            "Open the chat page, or ask in another terminal:",
            '  phi3flow chat "Who founded Microsoft?"',
            "Ctrl-C stops everything.",
        ]
    )
