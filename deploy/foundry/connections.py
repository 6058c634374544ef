"""Connections of kind Custom keys, as flows in the cloud find them.

azure-ai-ml cannot make this kind, so it is put by its ARM id. The two `azureml.flow` entries in its metadata
are what Prompt flow recognises it by; the key is the only secret, everything else is metadata, which a flow
reads as configs. What was written is read back through Prompt flow's own parser: what passes here is what a
flow gets.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from custom_connections.store import configs_of
from deploy.azure.shared.names import OURS, is_ours
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.problems import SECRETS_READER, missing_role
from deploy.azure.shared.session import Cloud
from phi3flow.core.errors import Phi3flowError
from phi3flow.phi3_contract import Endpoint, Rejected

API = "2024-10-01"
KIND = "CustomKeys"
FOR_FLOWS = {"azureml.flow.connection_type": "Custom", "azureml.flow.module": "promptflow.connections"}


class Unusable(Phi3flowError):
    """No flow can use the connection as it stands there."""


@dataclass(frozen=True)
class FlowConnection:
    """One connection as a step: `endpoint` as it should be. No value of a key is ever shown."""

    cloud: Cloud
    name: str
    endpoint: Endpoint
    kind: str = "connection"
    cost: Cost = "free"

    def look(self) -> Look:
        found = self.cloud.read(connection_id(self.cloud, self.name))
        if found is None:
            return Look("create")
        different = self._differences()
        if not different:
            return Look("keep")
        if not is_ours(tags_of(found)):
            what = f"has another {' and '.join(different)}, and is not phi3flow's to change"
            raise Phi3flowError(
                f"connection {self.name} {what}", "delete it in the portal, and phi3flow makes its own"
            )
        return Look("update", f"another {' and '.join(different)}")

    def make(self) -> None:
        metadata = {**FOR_FLOWS, **configs_of(self.endpoint), OURS: "connect"}
        properties = {
            "authType": KIND,
            "category": KIND,
            "target": "_",
            "credentials": {"keys": {"key": self.endpoint.key}},
            "metadata": metadata,
        }
        where = connection_id(self.cloud, self.name)
        self.cloud.put(where, {"properties": properties}, f"connection {self.name}")
        if different := self._differences():
            raise Phi3flowError(
                f"connection {self.name} reads back with another {' and '.join(different)}",
                "Azure has not kept what was written; the same command tries again",
            )

    def _differences(self) -> list[str]:
        """What a flow would read otherwise: names alone."""
        try:
            found = as_flows_read_it(self.cloud, self.name)
        except Unusable:
            return ["content"]
        wanted = configs_of(self.endpoint) | {"key": self.endpoint.key}
        shown = configs_of(found) | {"key": found.key}
        return sorted(name for name in wanted | shown if wanted.get(name) != shown.get(name))


def connection_id(cloud: Cloud, name: str) -> str:
    return f"{cloud.names.workspace_id}/connections/{name}"


def as_flows_read_it(cloud: Cloud, name: str) -> Endpoint:
    """The endpoint behind a stored connection, its key in memory alone.

    Raises Unusable where it is missing, is not for flows or lacks an entry, Phi3flowError where it may not
    be read.
    """
    from promptflow.core._connection_provider._workspace_connection_provider import (
        WorkspaceConnectionProvider,
    )
    from promptflow.exceptions import PromptflowException

    told = _with_secrets(cloud, name)
    try:
        parsed = WorkspaceConnectionProvider._convert_to_connection_dict(name, told)
    except PromptflowException:
        raise _unusable(cloud, name, "is not one that Prompt flow can read") from None
    if parsed["type"] != "CustomConnection":
        raise _unusable(cloud, name, f"is a {parsed['type']}, not of kind Custom keys")
    values, secret = parsed["value"], parsed["secret_keys"]
    secrets = {key: value for key, value in values.items() if key in secret}
    missing = [*({"endpoint"} - values.keys()), *({"key"} - secrets.keys())]
    if missing:
        raise _unusable(cloud, name, f"has no {' and no '.join(missing)}")
    try:
        return Endpoint.from_connection({k: v for k, v in values.items() if k not in secret}, secrets)
    except Rejected as error:
        raise _unusable(cloud, name, f"cannot be used: {error}") from None


def _with_secrets(cloud: Cloud, name: str) -> dict[str, Any]:
    from azure.core.exceptions import HttpResponseError

    try:
        return cloud.ask("POST", f"{connection_id(cloud, name)}/listsecrets?api-version={API}")
    except HttpResponseError as error:
        if error.status_code == 403:
            raise missing_role(SECRETS_READER, cloud.names.workspace) from error
        if error.status_code == 404:
            raise _unusable(cloud, name, "does not exist") from error
        raise


def _unusable(cloud: Cloud, name: str, what: str) -> Unusable:
    return Unusable(
        f"connection {name} in {cloud.names.workspace} {what}", f"phi3flow foundry connect {name}"
    )


def all_connections(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """Every connection of the project or workspace, without secrets."""
    address: str | None = f"{cloud.names.workspace_id}/connections?api-version={API}"
    while address:
        page = cloud.ask("GET", address)
        yield from page["value"]
        address = page.get("nextLink")


def tags_of(connection: Mapping[str, Any]) -> Mapping[str, str]:
    """A connection has no tags; its metadata carry ours."""
    return connection["properties"].get("metadata") or {}
