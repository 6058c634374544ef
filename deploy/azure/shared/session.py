"""The login, the subscription, and what every step asks Azure through the SDKs' clients."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin

from deploy.azure.shared.names import Names
from deploy.azure.shared.problems import explaining
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential
    from azure.core.polling import LROPoller
    from azure.mgmt.resource.resources import ResourceManagementClient

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS = 20, 120
MANAGEMENT = "https://management.azure.com"
SUBSCRIPTIONS_API, GROUPS_API = "2022-12-01", "2021-04-01"
ML_WORKSPACES = "microsoft.machinelearningservices/workspaces"
# Of each type of resource that phi3flow makes or leads to, in the order of removal: a workspace holds its
# endpoints, and stands on its storage. Those of the last three are part of others, or made by others.
API_VERSIONS = {
    ML_WORKSPACES: "2024-10-01",
    "microsoft.managedidentity/userassignedidentities": "2023-01-31",
    "microsoft.insights/components": "2020-02-02",
    "microsoft.alertsmanagement/smartdetectoralertrules": "2021-04-01",
    "microsoft.insights/actiongroups": "2023-01-01",
    "microsoft.containerregistry/registries": "2023-07-01",
    "microsoft.keyvault/vaults": "2023-07-01",
    "microsoft.storage/storageaccounts": "2023-04-01",
    "microsoft.operationalinsights/workspaces": "2022-10-01",
    "microsoft.authorization/roleassignments": "2022-04-01",
    "microsoft.keyvault/locations": "2023-07-01",
    "microsoft.cognitiveservices/accounts": "2024-10-01",
}


def api_version(resource_id: str) -> str:
    """A child, such as a cluster, has that of its parent; a resource group has its own."""
    kind = re.search(r".*/providers/([^/]+/[^/]+)", resource_id)
    return API_VERSIONS[kind[1].lower()] if kind else GROUPS_API


def existing(get: Callable[..., T], *which: str, **how: Any) -> T | None:
    """What an SDK's `get` finds; None where it, or what it would be in, does not exist."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get(*which, **how)
    except ResourceNotFoundError:
        return None


def if_allowed(get: Callable[[], T], what: str, otherwise: str) -> T | None:
    """What `get` reads of the whole subscription; None, said on stderr, for a login that may not.

    A role on the resource group alone does not reach there, and is enough for the rest of a plan.
    """
    from azure.core.exceptions import HttpResponseError

    try:
        return get()
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        say(f"{what}: not read, which takes Reader on the subscription; {otherwise}")
        return None


@dataclass(frozen=True)
class Cloud:
    """One subscription and workspace with its clients; nothing of it holds a key."""

    names: Names
    credential: "TokenCredential"
    arm: "ResourceManagementClient"
    patience: float

    @cached_property
    def ml(self) -> "MLClient":
        """Azure Machine Learning's client; its import takes seconds, so only for those who need it."""
        import logging

        from azure.ai.ml import MLClient

        for name in ("azure.ai.ml", "azure.core", "azure.identity", "msrest"):
            logging.getLogger(name).setLevel(logging.ERROR)
        names = self.names
        return MLClient(
            self.credential,
            names.subscription,
            names.group,
            names.workspace,
            show_progress=True,  # without, it waits for ever for a failed upload
            enable_telemetry=False,
        )

    @cached_property
    def subscription(self) -> dict[str, Any]:
        """With `tenantId` and `displayName`."""
        return self.ask("GET", f"/subscriptions/{self.names.subscription}?api-version={SUBSCRIPTIONS_API}")

    def read(self, resource_id: str) -> dict[str, Any] | None:
        """A resource as Resource Manager shows it; None where it or its parent does not exist."""
        get = self.arm.resources.get_by_id
        found = existing(get, resource_id, api_version=api_version(resource_id))
        return dict(found.as_dict()) if found is not None else None

    def put(self, resource_id: str, body: Mapping[str, Any], what: str) -> None:
        """Create a resource or change it, to the end. Raises what `finish` raises."""
        put = self.arm.resources.begin_create_or_update_by_id
        self.finish(put(resource_id, dict(body), api_version=api_version(resource_id)), what)

    def delete(self, resource_id: str) -> "LROPoller[None]":
        """Begin to delete a resource."""
        return self.arm.resources.begin_delete_by_id(resource_id, api_version=api_version(resource_id))

    def purge(self, workspace: str) -> "LROPoller[None]":
        """Begin to delete a workspace, hub or project for good: else Azure keeps its name for 14 days."""
        return self.ml.workspaces.begin_delete(
            workspace, delete_dependent_resources=False, permanently_delete=True
        )

    def ask(self, method: str, address: str) -> dict[str, Any]:
        """Resource Manager's JSON where no client has the call. Raises HttpResponseError."""
        from azure.core.rest import HttpRequest

        response = self.arm.send_request(HttpRequest(method, urljoin(MANAGEMENT, address)))
        response.raise_for_status()
        return dict(response.json())

    def finish(self, poller: "LROPoller[Any]", what: str) -> Any:
        """The result of a long-running operation. Raises Phi3flowError after `patience` seconds."""
        poller.wait(self.patience)
        if not poller.done():
            raise Phi3flowError(
                f"{what} is still going on after {self.patience:.0f} seconds; Azure continues",
                "phi3flow azure status shows how it ends (PHI3FLOW_AZURE_PATIENCE waits longer)",
            )
        return poller.result()


def connect(settings: Settings) -> Cloud:
    """Log in with the credentials that azure-identity finds, and print where. Raises BadInput."""
    if not settings.azure_subscription:
        raise BadInput(
            "no Azure subscription is set",
            "az login, then export PHI3FLOW_AZURE_SUBSCRIPTION=$(az account show --query id -o tsv)",
        )
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.resource.resources import ResourceManagementClient

    names = Names.of(settings)
    credential = DefaultAzureCredential()
    arm = ResourceManagementClient(
        credential,
        names.subscription,
        connection_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    cloud = Cloud(names, credential, arm, settings.azure_patience)
    with explaining(f"subscription {names.subscription}"):
        found = cloud.subscription
    say(f"tenant {found['tenantId']}, subscription {found['displayName']} ({names.subscription})")
    say(f"resource group {names.group}, workspace {names.workspace}, {names.region}")
    return cloud
