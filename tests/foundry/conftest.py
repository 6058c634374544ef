"""One emulated cloud for the session, whose two endpoints add."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import client_of, emulator_in
from foundry_cloud import provision_with_endpoints

from deploy.azure.shared.names import Names
from phi3flow.core.settings import Settings


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of the Foundry tests run; while a file `faults` is there, base refuses some sums."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def cloud_of_sums(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[Emulator]:
    """A cloud whose two models add; it ends with the assertion that nothing unknown was asked for."""
    with emulator_in(tmp_path_factory.mktemp("cloud")) as running:
        with client_of(running), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
            provision_with_endpoints(work)
        yield running


@pytest.fixture
def client(
    cloud_of_sums: Emulator, work: Path, isolated: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """That cloud, while this test's process is its client, in the folder `work`."""
    monkeypatch.chdir(work)
    with client_of(cloud_of_sums):
        monkeypatch.setenv("PHI3FLOW_AZURE_SUBSCRIPTION", tokens.SUBSCRIPTION)
        yield cloud_of_sums


@pytest.fixture
def names(client: Emulator, work: Path) -> Names:
    return Names.of(Settings.load(work))
