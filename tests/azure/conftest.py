"""One emulated cloud for the session, with a workspace in it; clients reach it by environment alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from azure_fakes import write_inputs
from emulated import GROUP, QUIET, WORKSPACE, UserCredential, client_of, emulator_in, workspace_in

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Ends with the assertion that the SDKs asked for nothing that is not emulated."""
    with emulator_in(tmp_path_factory.mktemp("azure")) as running:
        register(running.cloud, *USED)
        yield running


@pytest.fixture(scope="session")
def provisioned(emulator: Emulator) -> str:
    """The id of a workspace with a cluster."""
    return workspace_in(emulator)


@pytest.fixture
def client(cloud: Emulator, isolated: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The module's own `cloud`, while this test's process is its client."""
    with client_of(cloud):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        yield cloud


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats, a recipe and a base, as `azure train` takes them."""
    folder = tmp_path_factory.mktemp("work")
    write_inputs(folder)
    return folder


@pytest.fixture
def azure(emulator: Emulator, isolated: None) -> Iterator[Emulator]:
    """The session's cloud, while this test's process is its client."""
    with client_of(emulator):
        yield emulator


@pytest.fixture
def ml(azure: Emulator, provisioned: str) -> "MLClient":
    from azure.ai.ml import MLClient

    return MLClient(UserCredential(), tokens.SUBSCRIPTION, GROUP, WORKSPACE, **QUIET)
