"""Custom connections in Prompt flow's encrypted store: write an Endpoint, read an Endpoint.

`store_connection` and `load_endpoint` import promptflow: call `promptflow_home.enter_home` first.
"""

from contextlib import AbstractContextManager
from importlib.resources import files
from typing import Any

from phi3flow.core.errors import BadInput, Phi3flowError, translating
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Endpoint

TEMPLATES = tuple(side.connection for side in SIDES)
KEY_PLACEHOLDER = "${env:PHI3FLOW_ENDPOINT_KEY}"


def template(name: str, key: str) -> Endpoint:
    """The packaged connection `name` with `key` filled in. Raises BadInput for any other name.

    Prompt flow resolves `${env:...}` only in `pf flow serve`; elsewhere it would send the literal text.
    """
    from ruamel.yaml import YAML

    if name not in TEMPLATES:
        raise BadInput(
            f"connection '{name}' needs an endpoint", hint=f"phi3flow connect {name} --endpoint URL"
        )
    document = YAML(typ="safe").load((files("custom_connections") / f"{name}.yaml").read_text())
    secrets = {field: value.replace(KEY_PLACEHOLDER, key) for field, value in document["secrets"].items()}
    return Endpoint.from_connection(document["configs"], secrets)


def configs_of(endpoint: Endpoint) -> dict[str, str]:
    """A connection's `configs`: all of an endpoint but its key, as text; leaves out what is not set."""
    values = {
        "endpoint": endpoint.url,
        "contract": endpoint.contract,
        "model": endpoint.model,
        "deployment": endpoint.deployment,
        "timeout": f"{endpoint.timeout:g}",
        "auth": endpoint.auth if endpoint.auth != "key" else None,
    }
    return {name: value for name, value in values.items() if value}


def store_connection(name: str, endpoint: Endpoint) -> None:
    """Create or replace a connection. Raises BadInput without a key, Phi3flowError without a keyring."""
    from promptflow.client import PFClient
    from promptflow.entities import CustomConnection

    if not endpoint.key:
        raise BadInput(f"connection '{name}' has no key", hint="export PHI3FLOW_ENDPOINT_KEY=...")
    connection = CustomConnection(name=name, configs=configs_of(endpoint), secrets={"key": endpoint.key})
    with _store_errors(name):
        PFClient().connections.create_or_update(connection)


def load_endpoint(name: str) -> Endpoint:
    """Read a stored connection. Raises Phi3flowError if it is missing or its key cannot be decrypted."""
    from promptflow.client import PFClient

    with _store_errors(name):
        connection = PFClient().connections.get(name)
    return Endpoint.from_connection(connection.configs, connection.secrets)


def connection_data(name: str) -> dict[str, Any]:
    """A stored connection of any type for a process without Prompt flow: `{type, configs, secrets}`.

    Raises Phi3flowError as `load_endpoint` does.
    """
    from promptflow.client import PFClient

    with _store_errors(name):
        found = PFClient().connections.get(name)
    return {
        "type": type(found).__name__,
        "configs": dict(found.configs or {}),
        "secrets": dict(found.secrets or {}),
    }


def _store_errors(name: str) -> AbstractContextManager[None]:
    """Prompt flow's errors about its store as ours, with the command that repairs them."""
    from keyring.errors import KeyringError
    from promptflow._sdk._errors import (
        ConnectionNotFoundError,
        DecryptConnectionError,
        StoreConnectionEncryptionKeyError,
    )

    again = f"phi3flow connect {name} --endpoint URL"
    missing = Phi3flowError(f"there is no connection '{name}'", hint=again)
    other_key = Phi3flowError(
        f"connection '{name}' was stored under another encryption key",
        hint=f"set PF_ENCRYPTION_KEY to that key, or store it again: {again}",
    )
    no_key = Phi3flowError(
        "the keyring does not give Prompt flow its encryption key", hint='eval "$(phi3flow env)"'
    )
    return translating(
        {
            ConnectionNotFoundError: lambda _: missing,
            DecryptConnectionError: lambda _: other_key,
            KeyringError: lambda _: no_key,
            StoreConnectionEncryptionKeyError: lambda _: no_key,
        }
    )
