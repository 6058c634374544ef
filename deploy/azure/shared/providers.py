"""The resource providers that a subscription must have registered, as steps.

Nobody registers them for an SDK: a new subscription refuses the first resource of each kind, and its first
online endpoint fails without naming what is missing (MicrosoftLearning/mslearn-mlops, issue 72).
"""

from dataclasses import dataclass

from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud, if_allowed
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.polling import poll

NEEDED = (
    "Microsoft.MachineLearningServices",
    "Microsoft.Storage",
    "Microsoft.KeyVault",
    "Microsoft.Insights",
    "Microsoft.OperationalInsights",
    "Microsoft.ContainerRegistry",
    "Microsoft.ManagedIdentity",
    # Online endpoints alone need these two.
    "Microsoft.Cdn",
    "Microsoft.PolicyInsights",
)


@dataclass(frozen=True)
class Provider:
    """One provider, to be registered and waited for: that takes a minute or two."""

    cloud: Cloud
    name: str
    kind: str = "resource provider"
    cost: Cost = "free"

    def look(self) -> Look:
        state = self._state()
        return Look("keep") if state == "Registered" else Look("create", f"it is {state} in the subscription")

    def make(self) -> None:
        from azure.core.exceptions import HttpResponseError

        by_hand = f"az provider register --wait --namespace {self.name}"
        try:
            self.cloud.arm.providers.register(self.name)
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            raise Phi3flowError(
                f"your login may not register {self.name} in the subscription", f"ask an owner for: {by_hand}"
            ) from error
        try:
            poll(lambda: self._state() == "Registered" or None, seconds=self.cloud.patience)
        except TimeoutError:
            raise Phi3flowError(f"{self.name} is still being registered", by_hand) from None

    def _state(self) -> str:
        return str(self.cloud.arm.providers.get(self.name).registration_state)


def missing_providers(cloud: Cloud) -> list[Provider]:
    """One step for each that is not registered; none where this login may not see the subscription."""
    steps = [Provider(cloud, name) for name in NEEDED]
    return (
        if_allowed(
            lambda: [step for step in steps if step.look().do != "keep"],
            "resource providers",
            "where one is missing: az provider register --wait --namespace NAME",
        )
        or []
    )
