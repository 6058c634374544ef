"""The servers that phi3flow runs, as services of a `service_stack.Stack`, all on 127.0.0.1."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from custom_connections.promptflow_home import enter_home, new_encryption_key
from custom_connections.store import load_endpoint, store_connection
from phi3flow.app.flow_hosts import over_agents, over_promptflow
from phi3flow.core.child_process import ENCRYPTION_KEY, ENDPOINT_KEY, FLOW_KEY, module_command
from phi3flow.core.flow_folder import resolve_chat_flow
from phi3flow.core.lineage import Artifact
from phi3flow.core.service_stack import LOOPBACK, Service, Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES, TUNED, Side
from phi3flow.phi3_contract import Endpoint

if TYPE_CHECKING:
    from evaluation.asking.measuring import ServedFlow

# What the children below import, said before any of them starts.
ENDPOINT_MODULES = ("uvicorn", "fastapi", "prometheus_client", "torch", "transformers")
ANSWER_SECONDS = 1800  # a slow answer is not a failed one: who asks has a deadline of its own
PAGE_MODULES = ("streamlit",)


def require_modules(*names: str) -> None:
    """Raise ModuleNotFoundError, which names the extra on the command line, for one that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def with_flow_key(settings: Settings) -> Settings:
    """The same, with a new key for the flows that are served."""
    return settings.model_copy(update={"flow_key": token_urlsafe(32)})


def with_own_keys(settings: Settings, home: Path) -> Settings:
    """The same, with a Prompt flow home of its own in `home` and new keys, which only children get."""
    keys = {"endpoint_key": token_urlsafe(32), "encryption_key": new_encryption_key()}
    return with_flow_key(settings.model_copy(update={"promptflow_home": home, **keys}))


def scoring_endpoint(model: Path, side: Side, settings: Settings, log: Path) -> Service:
    """`phi3flow serve` on the port of `side`; the key travels in the environment."""
    require_modules(*ENDPOINT_MODULES)
    port = getattr(settings, side.endpoint_port)
    return Service(
        name=f"endpoint of {model}",
        command=module_command(
            "phi3flow", "serve", model, "--port", port, "--request-timeout", ANSWER_SECONDS
        ),
        port=port,
        ready_path="/health/ready",
        setting=side.endpoint_port,
        log=log,
        environment={ENDPOINT_KEY: settings.endpoint_key, FLOW_KEY: "", ENCRYPTION_KEY: ""},
    )


def endpoint_of(side: Side, settings: Settings) -> Endpoint:
    """What `scoring_endpoint` answers at: contract openai."""
    url = f"http://{LOOPBACK}:{getattr(settings, side.endpoint_port)}/v1/chat/completions"
    return Endpoint(url, settings.endpoint_key, "openai")


@contextmanager
def served(models: Mapping[str, Path], folder: Path, settings: Settings) -> Iterator[dict[str, Endpoint]]:
    """Serve a model folder for each side, and store its connection (`phi3-base`, `phi3-tuned`).

    Gives the endpoints by their connections' names. Logs and the store go to `folder`. Raises BadInput for a
    taken port and Phi3flowError for a server that does not start.
    """
    own = with_own_keys(settings, folder / "promptflow-home")
    sides = [side for side in SIDES if side.name in models]
    endpoints = {side.connection: endpoint_of(side, own) for side in sides}
    enter_home(own)
    with Stack(
        *(
            scoring_endpoint(models[side.name], side, own, folder / "logs" / f"{side.connection}.log")
            for side in sides
        )
    ):
        for name, endpoint in endpoints.items():
            store_connection(name, endpoint)
        yield endpoints


def served_flow(folder: Path, side: Side, settings: Settings, log: Path) -> Service:
    """A resolved flow, for callers with `flow_key`, in the Prompt flow home that this process has entered.

    `flow_host` says what serves it. Raises Phi3flowError for an environment or a connection that is missing.
    """
    port = getattr(settings, side.flow_port)
    host = over_agents if settings.flow_host == "agents" else over_promptflow
    command, environment = host(folder, port, settings)
    return Service(
        name=f"chat flow of {folder.name}",
        command=command,
        port=port,
        ready_path="/health",
        setting=side.flow_port,
        log=log,
        environment={ENDPOINT_KEY: "", FLOW_KEY: settings.flow_key, **environment},
    )


@contextmanager
def flow_over(
    flow: Path, connections: Mapping[Side, str], folder: Path, settings: Settings
) -> Iterator["ServedFlow"]:
    """Serve a person's own flow once for each connection, in the Prompt flow home that was entered.

    Logs go to `folder`. Raises what `resolve_chat_flow` and Stack raise.
    """
    from evaluation.asking.measuring import ServedFlow

    settings, logs = with_flow_key(settings), folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="flows-", dir=folder) as scratch:
        system = load_endpoint(connections[TUNED]).system_prompt()
        services, endpoints = [], {}
        for side, name in connections.items():
            served = resolve_chat_flow(flow, Path(scratch) / side.name, connection=name, system=system)
            services.append(served_flow(served, side, settings, logs / f"flow-{side.name}.log"))
            url = f"http://{LOOPBACK}:{getattr(settings, side.flow_port)}/score"
            endpoints[name] = Endpoint(url, settings.flow_key, "promptflow")
        with Stack(*services):
            # A row without a system message is asked as the flow asks by itself.
            own = {name: replace(one, system=one.system_prompt()) for name, one in endpoints.items()}
            yield ServedFlow(Artifact.of("flow", flow), own)


def chat_page(
    run: Path,
    settings: Settings,
    log: Path,
    *,
    arena: bool = False,
    host: str = LOOPBACK,
    others: Sequence[str] = (),
) -> Service:
    """Streamlit on the pages in `ui/`, which get the run's folder, the services' ports and the flows' key.

    `others` are options of `app.py` that say what answers, where that is not the run's tuned model.
    `host` is loopback or 0.0.0.0, which includes loopback. Everything that does not depend on the run stands
    in `ui/.streamlit/config.toml`.
    """
    require_modules(*PAGE_MODULES)
    flags = [f"--server.address={host}", f"--server.port={settings.ui_port}"]
    pages = [str(files("ui") / "server.py"), "--", str(run), *["--arena"] * arena, *others]
    names = [name for side in SIDES for name in (side.flow_port, side.endpoint_port)]
    ports = {f"PHI3FLOW_{name.upper()}": str(getattr(settings, name)) for name in names}
    keys = {ENDPOINT_KEY: "", FLOW_KEY: settings.flow_key, ENCRYPTION_KEY: ""}
    return Service(
        name="chat page",
        command=module_command("streamlit", "run", *flags, *pages),
        port=settings.ui_port,
        ready_path="/_stcore/health",
        setting="ui_port",
        log=log,
        environment={**ports, **keys},
    )
