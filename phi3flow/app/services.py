"""The servers that phi3flow runs, as services of a `processes.Stack`, all on 127.0.0.1."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from phi3flow.core.children import module_command
from phi3flow.core.flow_folder import serve_command
from phi3flow.core.ports import LOOPBACK
from phi3flow.core.processes import Service
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES

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
    from importlib.resources import files

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
