"""What can serve a flow: Prompt flow, or Agent Framework in an environment of its own; both answer alike."""

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from agents.unmovable import unmovable
from custom_connections.store import connection_data
from phi3flow.core.child_process import ENCRYPTION_KEY, module_command
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.flow_folder import connections_of
from phi3flow.core.settings import Settings

HOSTS = ("promptflow", "agents")
CONNECTIONS = "PHI3FLOW_CONNECTIONS"  # read by agents.connections
NO_TRACES = "OTEL_SDK_DISABLED"  # Prompt flow's home sets it; agents.tracing makes none unless asked


class Host(NamedTuple):
    """A command that serves a flow folder on a port, and the environment that it needs."""

    command: list[str]
    environment: dict[str, str]


def over_promptflow(folder: Path, port: int, settings: Settings) -> Host:
    """`pf flow serve` behind the flow's key; it reads the connections from the store."""
    return Host(module_command("phi3flow.app.flow_server", folder, port), {})


def over_agents(folder: Path, port: int, settings: Settings) -> Host:
    """The same over Agent Framework; the connections come from the store, and go into its environment.

    Raises Phi3flowError for an environment or a connection that is missing, BadInput for a flow that Agent
    Framework cannot take over.
    """
    if stops := [each for each in unmovable(folder) if each.stops]:
        said = [str(each._replace(file=each.file.relative_to(folder))) for each in stops]
        raise BadInput("\n".join(said), hint="phi3flow up --host promptflow serves it as it is")
    python = agents_python(settings)
    connections = {name: connection_data(name) for name in connections_of(folder)}
    command = [str(python), "-P", "-m", "agents.host", str(folder), str(port)]
    environment = {CONNECTIONS: json.dumps(connections), ENCRYPTION_KEY: "", NO_TRACES: ""}
    return Host(command, environment)


def agents_python(settings: Settings) -> Path:
    """The interpreter of Agent Framework's environment: the setting's, by default the checkout's as well."""
    checkout = Path(str(files("agents"))).parent
    default = Settings.model_fields["agents_environment"].default
    others = [checkout / default] if settings.agents_environment == default else []
    for environment in (settings.agents_environment, *others):
        if (environment / "bin" / "python").exists():
            return environment.absolute() / "bin" / "python"
    raise Phi3flowError(
        f"{settings.agents_environment} is missing: Agent Framework needs an environment of its own",
        hint=_build_command(checkout, settings.agents_environment),
    )


def _build_command(checkout: Path, environment: Path) -> str:
    """`make agents` in a checkout; for an installed package the same by hand."""
    if (checkout / "Makefile").exists():
        return f"make -C {shlex.quote(str(checkout))} agents"
    from phi3flow import __version__

    folder, pip = checkout / "agents", environment / "bin" / "pip"
    return (
        f"python3 -m venv {environment} && {pip} install -c {folder}/constraints.txt -r "
        f"{folder}/requirements.txt && {pip} install --no-deps phi3flow=={__version__}"
    )
