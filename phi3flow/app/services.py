"""The servers that phi3flow runs, as services of a `processes.Stack`, all on 127.0.0.1."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from custom_connections.promptflow_home import enter_home, new_encryption_key
from custom_connections.store import store_connection
from phi3flow.core.child_process import module_command
from phi3flow.core.flow_folder import serve_command
from phi3flow.core.service_stack import LOOPBACK, Service, Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Endpoint

# What the children below import, said before any of them starts.
ENDPOINT_MODULES = ("uvicorn", "fastapi", "prometheus_client", "torch", "transformers")
PAGE_MODULES = ("streamlit",)


def require_modules(*names: str) -> None:
    """Raise ModuleNotFoundError, which names the extra on the command line, for one that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def scoring_endpoint(model: Path, port: int, setting: str, key: str, log: Path) -> Service:
    """`phi3flow serve`; the key travels in the environment. Contract openai is at `openai_url(port)`."""
    require_modules(*ENDPOINT_MODULES)
    return Service(
        name=f"endpoint of {model}",
        command=module_command("phi3flow", "serve", model, "--port", port),
        port=port,
        ready_path="/health/ready",
        setting=setting,
        log=log,
        environment={"PHI3FLOW_ENDPOINT_KEY": key},
    )


def openai_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/v1/chat/completions"


@contextmanager
def served(run: Path, settings: Settings) -> Iterator[dict[str, Endpoint]]:
    """Both models of a run behind endpoints, by their connections' names; raises what serving raises."""
    with local_endpoints({side.connection: run / side.name for side in SIDES}, run, settings) as endpoints:
        yield endpoints


@contextmanager
def local_endpoints(
    models: Mapping[str, Path], folder: Path, settings: Settings
) -> Iterator[dict[str, Endpoint]]:
    """Serve each model folder and store a connection of its name (`phi3-base`, `phi3-tuned`) for it.

    The endpoint key and the store's encryption key live in memory alone; logs and the store go to `folder`.
    Raises BadInput for a taken port and Phi3flowError for a server that does not start.
    """
    key = secrets.token_urlsafe()
    home = folder / "promptflow-home"
    enter_home(settings.model_copy(update={"promptflow_home": home, "encryption_key": new_encryption_key()}))
    services, endpoints = [], {}
    for side in (side for side in SIDES if side.connection in models):
        name, port = side.connection, getattr(settings, side.endpoint_port)
        log = folder / "logs" / f"{name}.log"
        services.append(scoring_endpoint(models[name], port, side.endpoint_port, key, log))
        endpoints[name] = Endpoint(openai_url(port), key, "openai")
    with Stack(*services):
        for name, endpoint in endpoints.items():
            store_connection(name, endpoint)
        yield endpoints


def served_flow(folder: Path, port: int, setting: str, environment: Mapping[str, str], log: Path) -> Service:
    """`pf flow serve` of a resolved flow, under `promptflow_home.environment`."""
    return Service(
        f"chat flow of {folder.name}", serve_command(folder, port), port, "/health", setting, log, environment
    )


def chat_page(
    run: Path, settings: Settings, log: Path, *, arena: bool = False, host: str = LOOPBACK
) -> Service:
    """Streamlit on the pages in `ui/`, which get the run's folder and the flows' ports, and no key.

    `host` is loopback or 0.0.0.0, which includes loopback. Everything that does not depend on the run stands
    in `ui/.streamlit/config.toml`.
    """
    require_modules(*PAGE_MODULES)
    flags = [f"--server.address={host}", f"--server.port={settings.ui_port}"]
    pages = [str(files("ui") / "app.py"), "--", str(run), *["--arena"] * arena]
    ports = {f"PHI3FLOW_{side.flow_port.upper()}": str(getattr(settings, side.flow_port)) for side in SIDES}
    no_keys = {"PHI3FLOW_ENDPOINT_KEY": "", "PF_ENCRYPTION_KEY": ""}
    return Service(
        name="chat page",
        command=module_command("streamlit", "run", *flags, *pages),
        port=settings.ui_port,
        ready_path="/_stcore/health",
        setting="ui_port",
        log=log,
        environment={**ports, **no_keys},  # this shell or .env may hold keys; the page needs none
    )
