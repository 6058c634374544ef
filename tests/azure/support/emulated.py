"""This process, or a child of it, as a client of an emulated cloud."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator, Options

GROUP, WORKSPACE, REGION = "group", "workspace", "eastus2"
QUIET: Any = {
    "show_progress": False,
    "enable_telemetry": False,
}  # an MLClient; telemetry would call other hosts


class UserCredential:
    """A signed-in user, without a process for each token."""

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(tokens.mint(scopes[0]), int(time.time()) + tokens.LIFETIME_SECONDS)


@contextlib.contextmanager
def emulator_in(folder: Path) -> Iterator[Emulator]:
    """A cloud of one's own; it ends with the assertion that nothing unknown was asked for."""
    with Emulator(Options(folder)) as running:
        yield running
        assert [entry for entry in running.cloud.log.entries if entry.unknown] == []


@contextlib.contextmanager
def client_of(emulator: Emulator) -> Iterator[None]:
    """This process as a client of `emulator`: its environment, and nothing else, is changed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment.items():
            if value:
                patch.setenv(name, value)
            else:
                patch.delenv(name, raising=False)
        yield


def child_environment(emulator: Emulator) -> dict[str, str]:
    merged = {**os.environ, **emulator.environment}
    return {name: value for name, value in merged.items() if value}


def workspace_in(emulator: Emulator) -> str:
    """The id of a new workspace with a cluster. By Resource Manager: MLClient sleeps 5 s for one."""
    from azure.mgmt.resource.resources import ResourceManagementClient

    group = f"/subscriptions/{tokens.SUBSCRIPTION}/resourceGroups/{GROUP}"
    workspace = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
    storage = f"{group}/providers/Microsoft.Storage/storageAccounts/workspacestorage"
    scale = {"minNodeCount": 0, "maxNodeCount": 2}
    cluster = {"vmSize": "Standard_E4s_v3", "scaleSettings": scale}
    with client_of(emulator):
        arm = ResourceManagementClient(UserCredential(), tokens.SUBSCRIPTION)
        arm.resource_groups.create_or_update(GROUP, {"location": REGION})
        for resource_id, properties in (
            (storage, {}),
            (workspace, {"storageAccount": storage}),
            (f"{workspace}/computes/cluster", {"computeType": "AmlCompute", "properties": cluster}),
            (f"{workspace}/environments/image/versions/1", {"image": "python:3.11"}),
        ):
            body = {"location": REGION, "properties": properties}
            arm.resources.begin_create_or_update_by_id(resource_id, body, api_version="2024-04-01").result()
    return workspace
