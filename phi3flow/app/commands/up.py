"""`phi3flow up`: the endpoints, served chat flows and pages of a run, until Ctrl-C."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.ports import LOOPBACK
from phi3flow.core.sides import BASE, TUNED, Side

if TYPE_CHECKING:
    from phi3flow.core.processes import Service
    from phi3flow.core.settings import Settings

ANYWHERE = "0.0.0.0"  # noqa: S104 - allowed with a login only


def up(
    run: Annotated[
        Path | None,
        Argument(metavar="RUN", help="Run folder whose tuned/ is served (default: {runs}/demo)."),
    ] = None,
    *,
    arena: Annotated[
        bool,
        Option("--arena", help="Serve base/ too, and vote between the two without seeing their names."),
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
    from tempfile import TemporaryDirectory

    from phi3flow.core.processes import Stack, require_free_ports
    from phi3flow.core.settings import Settings

    settings = Settings.load()
    folder = run or settings.runs / "demo"
    sides = [TUNED, BASE] if arena else [TUNED]
    _check(folder, sides, host, settings)
    logs = folder / "up"
    logs.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="promptflow-", dir=logs) as scratch:
        secrets = new_secrets(Path(scratch))
        services = _services(folder, sides, Path(scratch), secrets, settings)
        services.append(_page(folder, settings, arena, host))
        require_free_ports(services)
        _prepare(Path(scratch), sides, secrets, settings)
        with Stack(*services) as stack:
            say(_ready(sides, settings))
            stack.wait()


def _check(folder: Path, sides: Sequence[Side], host: str, settings: "Settings") -> None:
    """Raise BadInput for a model that is not there, or a page that anyone could open."""
    from phi3flow.app.run_folder import require_model

    for side in sides:
        require_model(folder, side.name, "phi3flow demo" if folder == settings.runs / "demo" else "")
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
    folder: Path, sides: Sequence[Side], scratch: Path, secrets: Mapping[str, str], settings: "Settings"
) -> "list[Service]":
    """An endpoint for each model, and its chat flow."""
    from phi3flow.app.services import scoring_endpoint, served_flow

    logs, key = folder / "up", secrets["PHI3FLOW_ENDPOINT_KEY"]
    services = []
    for side in sides:
        port, log = getattr(settings, side.endpoint_port), logs / f"endpoint-{side.name}.log"
        services.append(scoring_endpoint(folder / side.name, port, side.endpoint_port, key, log))
        port, log = getattr(settings, side.flow_port), logs / f"flow-{side.name}.log"
        services.append(served_flow(scratch / side.name, port, side.flow_port, secrets, log))
    return services


def _page(folder: Path, settings: "Settings", arena: bool, host: str) -> "Service":
    from phi3flow.app.services import chat_page

    return chat_page(folder, settings, folder / "up" / "page.log", arena=arena, host=host)


def _prepare(scratch: Path, sides: Sequence[Side], secrets: Mapping[str, str], settings: "Settings") -> None:
    """A chat flow and a connection for each model, stored in a child: only children have the keys."""
    from phi3flow.app.services import openai_url
    from phi3flow.core.children import module_command
    from phi3flow.core.flow_folder import resolve_flow
    from phi3flow.core.processes import finish

    for side in sides:
        resolve_flow("chat", scratch / side.name, connection=side.connection)
        url = openai_url(getattr(settings, side.endpoint_port))
        connect = module_command("phi3flow", "connect", side.connection, "--endpoint", url)
        finish([*connect, "--contract", "openai"], environment=secrets)


def _ready(sides: Sequence[Side], settings: "Settings") -> str:
    lines = ["", f"  chat page        http://127.0.0.1:{settings.ui_port}"]
    for side in sides:
        flow, endpoint = getattr(settings, side.flow_port), getattr(settings, side.endpoint_port)
        lines += [
            f"  {side.name + ' flow':16} http://127.0.0.1:{flow}/score",
            f"  {side.name + ' endpoint':16} http://127.0.0.1:{endpoint}/v1/chat/completions",
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
