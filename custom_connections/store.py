"""Custom connections in Prompt flow's encrypted store: an Endpoint goes in, an Endpoint comes out.

Every function here imports promptflow, so `promptflow_home.enter_home` comes first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.phi3_contract import Endpoint

TEMPLATES = ("phi3-base", "phi3-tuned")
KEY_PLACEHOLDER = "${env:PHI3FLOW_ENDPOINT_KEY}"


def template(name: str, key: str) -> Endpoint:
    """The packaged connection `name` with its placeholder filled in. Raises BadInput for any other name.

    Prompt flow resolves `${env:...}` only while serving; in a test or a run it would send the literal text.
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
    """Everything of an endpoint but its key, as a connection's `configs`: text only, absent means default."""
    values = {
        "endpoint": endpoint.url,
        "contract": endpoint.contract,
        "model": endpoint.model,
        "deployment": endpoint.deployment,
        "timeout": f"{endpoint.timeout:g}",
    }
    return {name: value for name, value in values.items() if value}


def store_connection(name: str, endpoint: Endpoint) -> None:
    """Create or replace the connection. Raises BadInput without a key, Phi3flowError without a keyring."""
    from promptflow.client import PFClient
    from promptflow.entities import CustomConnection

    if not endpoint.key:
        raise BadInput(f"connection '{name}' has no key", hint="export PHI3FLOW_ENDPOINT_KEY=...")
    connection = CustomConnection(name=name, configs=configs_of(endpoint), secrets={"key": endpoint.key})
    with _explained(name):
        PFClient().connections.create_or_update(connection)


def load_endpoint(name: str) -> Endpoint:
    """Read a stored connection. Raises Phi3flowError when it is missing or its key cannot be read."""
    from promptflow.client import PFClient

    with _explained(name):
        connection = PFClient().connections.get(name)
    return Endpoint.from_connection(connection.configs, connection.secrets)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say Prompt flow's store errors in a sentence, with the command that repairs them."""
    from keyring.errors import KeyringError
    from promptflow._sdk._errors import (
        ConnectionNotFoundError,
        DecryptConnectionError,
        StoreConnectionEncryptionKeyError,
    )

    again = f"phi3flow connect {name} --endpoint URL"
    try:
        yield
    except ConnectionNotFoundError:
        raise Phi3flowError(f"there is no connection '{name}'", hint=again) from None
    except DecryptConnectionError:
        raise Phi3flowError(
            f"connection '{name}' was stored under another encryption key",
            hint=f"set PF_ENCRYPTION_KEY to that key, or store it again: {again}",
        ) from None
    except (KeyringError, StoreConnectionEncryptionKeyError):
        raise Phi3flowError(
            "the keyring does not hand out Prompt flow's encryption key", hint='eval "$(phi3flow env)"'
        ) from None
