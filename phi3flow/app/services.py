"""The servers that phi3flow runs, as services of a `processes.Stack`, all on 127.0.0.1."""

import sys
from collections.abc import Mapping
from pathlib import Path

from phi3flow.core.flow_folder import serve_command
from phi3flow.core.ports import LOOPBACK
from phi3flow.core.processes import Service
from phi3flow.core.settings import Settings

THEME = {
    "theme.baseRadius": "large",
    "theme.light.primaryColor": "#0067b8",
    "theme.light.secondaryBackgroundColor": "#f3f6fb",
    "theme.light.textColor": "#1b1f24",
    "theme.dark.primaryColor": "#5cb3ff",
    "theme.dark.backgroundColor": "#14171c",
    "theme.dark.secondaryBackgroundColor": "#1e232b",
    "theme.dark.textColor": "#e8ebef",
}


def scoring_endpoint(model: Path, port: int, setting: str, key: str, log: Path) -> Service:
    """`phi3flow serve`; the key travels in the environment. Contract openai is at `openai_url(port)`."""
    return Service(
        name=f"endpoint of {model}",
        command=[sys.executable, "-m", "phi3flow", "serve", str(model), "--port", str(port)],
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
    """Streamlit on the pages in `ui/`; they know the run by name and the served flows by port, and no key.

    `host` is loopback or 0.0.0.0, which answers on loopback too.
    """
    from importlib.resources import files

    options = {
        "server.address": host,
        "server.port": str(settings.ui_port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        **THEME,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    streamlit = [sys.executable, "-m", "streamlit", "run"]
    return Service(
        name="chat page",
        command=[*streamlit, *flags, str(files("ui") / "app.py"), "--", str(run), *["--arena"] * arena],
        port=settings.ui_port,
        ready_path="/_stcore/health",
        setting="ui_port",
        log=log,
        environment={
            "PHI3FLOW_FLOW_PORT": str(settings.flow_port),
            "PHI3FLOW_BASE_FLOW_PORT": str(settings.base_flow_port),
            "PHI3FLOW_ENDPOINT_KEY": "",  # whatever this shell or .env holds, the page needs none
            "PF_ENCRYPTION_KEY": "",
        },
    )
