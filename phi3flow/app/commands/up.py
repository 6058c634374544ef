"""`phi3flow up`: the endpoints, served chat flows and pages of a run, until Ctrl-C."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from custom_connections.store import store_connection
from phi3flow.app.run_folder import require_model
from phi3flow.app.served_form import served_form
from phi3flow.app.services import chat_page, endpoint_of, scoring_endpoint, served_flow, with_own_keys
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.service_stack import LOOPBACK, Service, Stack, require_free_ports
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, TUNED, Side

ANYWHERE = "0.0.0.0"  # noqa: S104 - allowed with a login only


def up(
    run: Annotated[
        Path | None, Argument(metavar="RUN", help="Run folder whose tuned/ is served (default: {runs}/demo).")
    ] = None,
    *,
    arena: Annotated[
        bool, Option("--arena", help="Serve base/ too, and vote between the two without seeing their names.")
    ] = False,
    host: Annotated[
        str,
        Option(
            metavar="ADDRESS",
            help=f"{LOOPBACK}, or {ANYWHERE} for other machines, which needs a login: docs/chat.md.",
        ),
    ] = LOOPBACK,
) -> Outcome:
    """Chat with a run's tuned model in the browser, until Ctrl-C.

    example: phi3flow up runs/demo --arena

    One Ctrl-C stops everything (exit code 130); so does a service that ends by itself (1).
    """
    settings = Settings.load()
    folder = run or settings.runs / "demo"
    sides = [TUNED, BASE] if arena else [TUNED]
    _check(folder, sides, host, settings)
    logs = folder / "up"
    logs.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="promptflow-", dir=logs) as scratch:
        flows, own = Path(scratch), with_own_keys(settings, Path(scratch) / "home")
        services = [each for side in sides for each in _services(folder, side, flows, own)]
        services.append(chat_page(folder, settings, logs / "page.log", arena=arena, host=host))
        require_free_ports(services)
        enter_home(own)
        for side in sides:
            resolve_flow("chat", flows / side.name, connection=side.connection)
            store_connection(side.connection, endpoint_of(side, own))
        with Stack(*services) as stack:
            say(_ready(sides, settings))
            stack.wait()


def _check(folder: Path, sides: Sequence[Side], host: str, settings: Settings) -> None:
    """Raise BadInput for a model that is not there, or a page that anyone could open."""
    for side in sides:
        require_model(folder, side.name, "phi3flow demo" if folder == settings.runs / "demo" else "")
    if host == LOOPBACK:
        return
    from ui.login import HOW_TO, login_problem

    if host != ANYWHERE:
        raise BadInput(f"--host {host}: not an address for this page", hint=f"{LOOPBACK} or {ANYWHERE}")
    if problem := login_problem():
        raise BadInput(f"--host {host} needs a login: {problem}", hint=HOW_TO)


def _services(folder: Path, side: Side, flows: Path, settings: Settings) -> list[Service]:
    """The endpoint of a model, and its chat flow."""
    logs = folder / "up"
    return [
        scoring_endpoint(served_form(folder / side.name), side, settings, logs / f"endpoint-{side.name}.log"),
        served_flow(flows / side.name, side, settings, logs / f"flow-{side.name}.log"),
    ]


def _ready(sides: Sequence[Side], settings: Settings) -> str:
    lines = ["", f"  chat page        http://127.0.0.1:{settings.ui_port}"]
    for side in sides:
        lines += [
            f"  {side.name + ' flow':16} http://127.0.0.1:{getattr(settings, side.flow_port)}/score",
            f"  {side.name + ' endpoint':16} {endpoint_of(side, settings).url}",
        ]
    lines += ["", "Open the chat page, or ask in another terminal:"]
    return "\n".join([*lines, '  phi3flow chat "Who founded Microsoft?"', "Ctrl-C stops everything."])
