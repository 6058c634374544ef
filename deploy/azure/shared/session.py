"""The login, the subscription, and the SDK clients for it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

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

CONNECT_SECONDS, READ_SECONDS = 20, 120
SUBSCRIPTIONS_API = "2022-12-01"


@dataclass(frozen=True)
class Cloud:
    """One subscription and workspace with its clients; nothing of it holds a key."""

    names: Names
    credential: "TokenCredential"
    arm: "ResourceManagementClient"
    tenant: str
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
    from azure.core.rest import HttpRequest
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
    url = f"https://management.azure.com/subscriptions/{names.subscription}?api-version={SUBSCRIPTIONS_API}"
    with explaining(f"subscription {names.subscription}"):
        response = arm.send_request(HttpRequest("GET", url))
        response.raise_for_status()
    found = response.json()
    say(f"tenant {found['tenantId']}, subscription {found['displayName']} ({names.subscription})")
    say(f"resource group {names.group}, workspace {names.workspace}, {names.region}")
    return Cloud(names, credential, arm, found["tenantId"], settings.azure_patience)
