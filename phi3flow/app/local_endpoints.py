"""Model folders behind endpoints and connections, for as long as a `with` block lasts."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from custom_connections.promptflow_home import enter_home, new_encryption_key
from phi3flow.app.services import openai_url, scoring_endpoint
from phi3flow.core.processes import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Endpoint

PORT_SETTINGS = {side.connection: side.endpoint_port for side in SIDES}


@contextmanager
def local_endpoints(
    models: Mapping[str, Path], folder: Path, settings: Settings
) -> Iterator[dict[str, Endpoint]]:
    """Serve each model folder and store a connection of its name (`phi3-base`, `phi3-tuned`) for it.

    The endpoint key and the store's encryption key live in memory alone; logs and the store go to `folder`.
    Raises BadInput for a taken port and Phi3flowError for a server that does not start.
    """
    from custom_connections.store import store_connection

    key = secrets.token_urlsafe()
    home = folder / "promptflow-home"
    enter_home(settings.model_copy(update={"promptflow_home": home, "encryption_key": new_encryption_key()}))
    ports = {name: getattr(settings, PORT_SETTINGS[name]) for name in models}
    services = [
        scoring_endpoint(model, ports[name], PORT_SETTINGS[name], key, folder / "logs" / f"{name}.log")
        for name, model in models.items()
    ]
    with Stack(*services):
        endpoints = {name: Endpoint(openai_url(port), key, "openai") for name, port in ports.items()}
        for name, endpoint in endpoints.items():
            store_connection(name, endpoint)
        yield endpoints
