"""`phi3flow up`: the endpoints, served chat flows and pages of a run, until Ctrl-C."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from custom_connections.store import store_connection
from phi3flow.app.flow_callers import callers_know, curl_line
from phi3flow.app.flow_hosts import HOSTS
from phi3flow.app.run_folder import require_model
from phi3flow.app.served_form import served_form
from phi3flow.app.services import (
    chat_page,
    endpoint_of,
    scoring_endpoint,
    served_flow,
    with_flow_key,
    with_own_keys,
)
from phi3flow.app.stored import StoredChat, stored_chat
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone, scratch_folder
from phi3flow.core.flow_folder import resolve_chat_flow, resolve_flow
from phi3flow.core.folder_lock import writing
from phi3flow.core.served_model import served_run
from phi3flow.core.service_stack import LOOPBACK, Service, Stack, require_free_ports
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, TUNED, Side

ANYWHERE = "0.0.0.0"  # noqa: S104 - allowed with a login only


@for_owner_alone()  # conversations, votes and logs
def up(
    run: Annotated[
        Path | None, Argument(metavar="RUN", help="Run folder whose tuned/ is served (default: {runs}/demo).")
    ] = None,
    *,
    connection: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Chat with the endpoint of a stored connection instead; RUN says where the chats are kept "
            "(default: {runs}/NAME).",
        ),
    ] = None,
    flow: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Serve your own flow: input question, output answer. RUN's model or --connection stands in "
            "for the connection that it names (default: the packaged chat flow).",
        ),
    ] = None,
    arena: Annotated[
        bool, Option("--arena", help="Serve base/ too, and vote between the two without seeing their names.")
    ] = False,
    host: Annotated[
        str,
        Option(
            metavar="ADDRESS",
            help=f"{LOOPBACK}, or {ANYWHERE} for other machines, which needs a login: docs/chat.md. "
            "Or what serves the flow: promptflow or agents (default: the setting flow_host).",
        ),
    ] = LOOPBACK,
) -> Outcome:
    """Chat with a run's tuned model in the browser, until Ctrl-C.

    example: phi3flow up runs/demo --arena

    example: phi3flow up --connection phi3-tuned

    One Ctrl-C stops everything (exit code 130); so does a service that ends by itself (1).
    """
    settings = Settings.load()
    if host in HOSTS:
        settings, host = settings.model_copy(update={"flow_host": host}), LOOPBACK
    _check_host(host)
    if connection or (flow and run is None):
        if arena:
            raise BadInput("--arena compares the two models of a run", hint="phi3flow up RUN --arena")
        return _up_stored(stored_chat(run, connection, flow, settings), host, settings)
    folder = run or settings.runs / "demo"
    sides = [TUNED, BASE] if arena else [TUNED]
    for side in sides:
        require_model(folder, side.name, "phi3flow demo" if folder == settings.runs / "demo" else "")
    require_model(served_run(folder), TUNED.name, f"phi3flow promote {shlex.quote(str(folder))} --undo")
    return _up_run(folder, sides, flow, host, settings)


def _up_run(folder: Path, sides: Sequence[Side], flow: Path | None, host: str, settings: Settings) -> Outcome:
    """Serve the models of a run, each behind its flow, in a Prompt flow home that ends with them."""
    logs = folder / "up"
    others = ["--name", flow.resolve().name] if flow else []
    log, arena = logs / "page.log", BASE in sides
    with writing(logs), scratch_folder(logs / "promptflow") as scratch:
        own = with_own_keys(settings, scratch / "home")
        page = chat_page(folder, own, log, arena=arena, host=host, others=others)
        enter_home(own)
        for side in sides:
            store_connection(side.connection, endpoint_of(side, own))
        with callers_know(own.flow_key, sides, settings):
            while True:
                _serve_until_promoted(folder, sides, flow, [page], own)
                say(f"serving {served_run(folder) / TUNED.name} from now on")


def _serve_until_promoted(
    folder: Path, sides: Sequence[Side], flow: Path | None, pages: Sequence[Service], settings: Settings
) -> None:
    """Return once another model than now is to be served: `phi3flow promote` says which."""
    now = served_run(folder)
    models = {side: (now if side is TUNED else folder) / side.name for side in sides}
    with scratch_folder(folder / "up" / "promptflow" / "flows") as flows:
        system = recorded_system_prompt(models[TUNED])
        for side in sides:
            _resolve(flow, flows / side.name, side.connection, system)
        services = [
            each
            for side, model in models.items()
            for each in _services(model, side, folder / "up", flows, settings)
        ]
        services += pages
        require_free_ports(services)
        with Stack(*services) as stack:
            say(_ready(sides, settings, endpoints=True))
            stack.wait_until(lambda: served_run(folder) != now)


def _up_stored(chat: StoredChat, host: str, settings: Settings) -> Outcome:
    """Serve a flow over connections of the person's own store, and no model."""
    logs, own = chat.folder / "up", with_flow_key(settings)
    with writing(logs), scratch_folder(logs / "promptflow") as scratch:
        served = _resolve(chat.flow, scratch / TUNED.name, chat.connection, chat.system)
        others = ["--name", chat.name, *(["--context", str(chat.context)] if chat.context else [])]
        services = [
            served_flow(served, TUNED, own, logs / "flow.log"),
            chat_page(chat.folder, own, logs / "page.log", host=host, others=others),
        ]
        require_free_ports(services)
        with callers_know(own.flow_key, [TUNED], settings):
            return _until_interrupted(services, _ready([TUNED], settings, endpoints=False))


def _resolve(flow: Path | None, target: Path, connection: str | None, system: str) -> Path:
    if flow:
        return resolve_chat_flow(flow, target, connection=connection, system=system)
    return resolve_flow("chat", target, connection=connection, system=system)


def _until_interrupted(services: Sequence[Service], ready: str) -> Outcome:
    with Stack(*services) as stack:
        say(ready)
        stack.wait()


def _check_host(host: str) -> None:
    """Raise BadInput for a page that anyone could open."""
    if host == LOOPBACK:
        return
    from ui.login import HOW_TO, login_problem

    if host != ANYWHERE:
        raise BadInput(f"--host {host}: not an address for this page", hint=f"{LOOPBACK} or {ANYWHERE}")
    if problem := login_problem():
        raise BadInput(f"--host {host} needs a login: {problem}", hint=HOW_TO)


def _services(model: Path, side: Side, logs: Path, flows: Path, settings: Settings) -> list[Service]:
    """The endpoint of a model, and its chat flow."""
    return [
        scoring_endpoint(served_form(model), side, settings, logs / f"endpoint-{side.name}.log"),
        served_flow(flows / side.name, side, settings, logs / f"flow-{side.name}.log"),
    ]


def _ready(sides: Sequence[Side], settings: Settings, *, endpoints: bool) -> str:
    lines = ["", f"  chat page        http://127.0.0.1:{settings.ui_port}"]
    for side in sides:
        lines.append(f"  {side.name + ' flow':16} http://127.0.0.1:{getattr(settings, side.flow_port)}/score")
        if endpoints:
            lines.append(f"  {side.name + ' endpoint':16} {endpoint_of(side, settings).url}")
    lines += ["", "Open the chat page, or ask in another terminal:"]
    asked = ['  phi3flow chat "Who founded Microsoft?"', f"  {curl_line(settings.flow_port, settings)}"]
    return "\n".join([*lines, *asked, "Ctrl-C stops everything."])
