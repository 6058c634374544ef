"""The roles that docs/azure.md names are enough, for each person there, and none of them is too many."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_client import take
from azure_emulator.arm import roles
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import emulator_in

from deploy.azure.shared.names import Names
from phi3flow.app.cli import main
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.settings import Settings

SUBSCRIPTION = f"/subscriptions/{tokens.SUBSCRIPTION}"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A subscription whose owner has made a resource group and registered the providers."""
    with emulator_in(tmp_path_factory.mktemp("cloud")) as running:
        register(running.cloud, *USED)
        group = f"{SUBSCRIPTION}/resourceGroups/phi3flow"
        kind = "Microsoft.Resources/resourceGroups"
        state = {"provisioningState": "Succeeded"}
        running.cloud.store.put(
            {"id": group, "name": "phi3flow", "type": kind, "location": "eastus2", "properties": state}
        )
        yield running


@pytest.fixture
def names(client: Emulator, work: Path) -> Names:
    return Names.of(Settings.load(work))


def data_scientist(names: Names) -> list[tuple[str, str]]:
    return [
        ("AzureML Data Scientist", names.workspace_id),
        ("Managed Identity Operator", names.identity_id),
        ("Reader", names.group_id),
    ]


def test_1_an_owner_of_the_group_alone_provisions_with_a_narrower_plan(client, names, capsys):
    roles.give(client.cloud, [("Owner", names.group_id)])
    assert main(["azure", "provision", "--profile", "cpu"]) == 0
    told = capsys.readouterr().err
    for what in ("quota for Standard_E16s_v3", "resource providers", "deleted key vaults"):
        assert f"{what}: not read, which takes Reader on the subscription" in told


def test_2_without_the_identity_operators_role_the_endpoint_is_refused_by_name(client, work, names):
    roles.give(client.cloud, [one for one in data_scientist(names) if "Operator" not in one[0]])
    take("train", work, 0)
    with pytest.raises(Phi3flowError, match=r"userAssignedIdentities/assign/action on .*-identity"):
        take("deploy", work, 0)


def test_3_a_data_scientist_trains_deploys_and_rolls_out(client, work, names, capsys):
    roles.give(client.cloud, data_scientist(names))
    take("train", work, 0)
    take("deploy", work, 0)
    take("promote", work, 0)
    assert main(["azure", "status", "--json"]) == 0
    (served,) = json.loads(capsys.readouterr().out)["served"]
    assert served["traffic"] == 100
    assert main(["azure", "teardown", "--old"]) == 0


def test_4_a_data_scientist_changes_nothing_else(client, names, capsys):
    roles.give(client.cloud, data_scientist(names))
    assert main(["azure", "provision", "--profile", "cpu", "--nodes", "3"]) == 1
    assert "a role is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "/subscriptions/s", "Microsoft.Resources/subscriptions/read"),
        (
            "PUT",
            "/subscriptions/s/resourceGroups/g",
            "Microsoft.Resources/subscriptions/resourceGroups/write",
        ),
        ("GET", "/subscriptions/s/providers/N/locations/l/usages", "N/locations/usages/read"),
        ("POST", "/subscriptions/s/resourceGroups/g/providers/N/a/b/listKeys", "N/a/listKeys/action"),
        ("DELETE", "/subscriptions/s/resourceGroups/g/providers/N/a/b/c/d", "N/a/c/delete"),
    ],
)
def test_an_action_follows_from_method_and_path(method, path, action):
    assert roles.action_of(method, path) == action
