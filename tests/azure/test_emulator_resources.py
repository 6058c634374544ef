"""Groups, identities, roles, workspaces, compute, quota and assets, made and read by the real SDKs."""

import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import AmlCompute, Data, Model, Workspace
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.resource.resources import ResourceManagementClient
from azure_emulator.arm.identities import ROLES
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import QUIET, REGION, UserCredential

SUBSCRIPTION = tokens.SUBSCRIPTION


@pytest.fixture
def arm(azure: Emulator) -> ResourceManagementClient:
    return ResourceManagementClient(UserCredential(), SUBSCRIPTION)


def put(arm: ResourceManagementClient, resource_id: str, api_version: str, **body: Any) -> Any:
    return arm.resources.begin_create_or_update_by_id(resource_id, body, api_version=api_version).result()


def test_a_group_with_everything_in_it_comes_and_goes(azure: Emulator, arm: ResourceManagementClient) -> None:
    group = arm.resource_groups.create_or_update("short-lived", {"location": REGION, "tags": {"ours": "yes"}})
    registry_id = f"{group.id}/providers/Microsoft.ContainerRegistry/registries/shortlivedregistry"
    registry = put(arm, registry_id, "2023-07-01", location=REGION, sku={"name": "Basic"})
    assert registry.properties["loginServer"] == "shortlivedregistry.azurecr.io"
    storage_id = f"{group.id}/providers/Microsoft.Storage/storageAccounts/shortlived"
    put(arm, storage_id, "2023-05-01", location=REGION, tags={"ours": "yes"})
    workspace_id = f"{group.id}/providers/Microsoft.MachineLearningServices/workspaces/shop"
    parts = {"storageAccount": storage_id, "containerRegistry": registry_id}
    made = put(arm, workspace_id, "2024-04-01", location=REGION, properties=parts)
    assert made.properties["provisioningState"] == "Succeeded"
    names = {item.name for item in arm.resources.list_by_resource_group("short-lived")}
    assert names == {"shortlivedregistry", "shortlived", "shop"}
    tagged = arm.resources.list_by_resource_group("short-lived", filter="tagName eq 'ours'")
    assert [item.name for item in tagged] == ["shortlived"]
    arm.resource_groups.begin_delete("short-lived").result()
    assert not azure.cloud.store.below(group.id)
    assert azure.cloud.store.read("storage-accounts", "shortlived") is None
    with pytest.raises(ResourceNotFoundError, match="ResourceGroupNotFound"):
        arm.resource_groups.get("short-lived")


@pytest.mark.slow
def test_a_workspace_of_the_machine_learning_sdk_brings_what_it_needs(arm: ResourceManagementClient) -> None:
    """Slow, because the SDK sleeps 5 s while the template is deployed."""
    arm.resource_groups.create_or_update("by-template", {"location": REGION})
    ml = MLClient(UserCredential(), SUBSCRIPTION, "by-template", **QUIET)
    made = ml.workspaces.begin_create(Workspace(name="shop", location=REGION, tags={"ours": "yes"})).result()
    assert made.tags["ours"] == "yes"
    assert made.container_registry is None
    found = {item.type for item in arm.resources.list_by_resource_group("by-template")}
    assert found >= {"Microsoft.Storage/storageAccounts", "Microsoft.KeyVault/vaults"}
    assert {store.name for store in ml_of(made).datastores.list()} >= {"workspaceblobstore"}


def ml_of(workspace: Workspace) -> MLClient:
    return MLClient(UserCredential(), SUBSCRIPTION, workspace.resource_group, workspace.name, **QUIET)


def test_a_role_is_assigned_once_and_only_to_a_known_principal(arm: ResourceManagementClient) -> None:
    group = arm.resource_groups.create_or_update("roles", {"location": REGION})
    identity_id = f"{group.id}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity"

    def principal() -> str:
        identity = put(arm, identity_id, "2023-01-31", location=REGION)
        return str(identity.properties["principalId"])

    def assign(principal: str) -> None:
        role = f"{group.id}/providers/Microsoft.Authorization/roleDefinitions/{ROLES['AcrPull']}"
        name = f"{group.id}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        put(arm, name, "2022-04-01", properties={"roleDefinitionId": role, "principalId": principal})

    assert principal() == principal()
    assign(principal())
    with pytest.raises(ResourceExistsError, match="RoleAssignmentExists"):
        assign(principal())
    with pytest.raises(HttpResponseError, match="PrincipalNotFound"):
        assign(str(uuid.uuid4()))


def test_names_that_are_host_names_are_taken_for_everybody(arm: ResourceManagementClient) -> None:
    def make(group: str) -> Any:
        arm.resource_groups.create_or_update(group, {"location": REGION})
        account = f"resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/onlyone"
        sku = {"name": "Standard_LRS"}
        return put(arm, f"/subscriptions/{SUBSCRIPTION}/{account}", "2023-05-01", location=REGION, sku=sku)

    make("first")
    make("first")
    with pytest.raises(ResourceExistsError, match="already taken"):
        make("second")


def test_a_deleted_vault_keeps_its_name_until_it_is_recovered(arm: ResourceManagementClient) -> None:
    group = arm.resource_groups.create_or_update("vaults", {"location": REGION})

    def make(**properties: str) -> Any:
        vault_id = f"{group.id}/providers/Microsoft.KeyVault/vaults/kept"
        return put(arm, vault_id, "2023-07-01", location=REGION, properties=properties)

    vault = make()
    arm.resources.begin_delete_by_id(vault.id, api_version="2023-07-01").result()
    with pytest.raises(ResourceExistsError, match="in deleted state"):
        make()
    assert make(createMode="recover").id == vault.id


def test_a_cluster_has_a_size_of_the_region_and_keeps_it(ml: MLClient) -> None:
    assert ml.compute.get("cluster").max_instances == 2
    with pytest.raises(HttpResponseError, match="not available in this region"):
        ml.compute.begin_create_or_update(AmlCompute(name="odd", size="Standard_None")).result()
    with pytest.raises(HttpResponseError, match="cannot be changed"):
        ml.compute.begin_create_or_update(AmlCompute(name="cluster", size="Standard_DS3_v2")).result()
    families = {size.name: size.family for size in ml.compute.list_sizes(location=REGION)}
    assert families["Standard_NC24ads_A100_v4"] == "standardNCADSA100v4Family"
    limits = {usage.name["value"]: usage.limit for usage in ml.compute.list_usage(location=REGION)}
    assert limits["Standard NCADSA100v4 Family Cluster Dedicated vCPUs"] == 100
    assert limits["Standard NCADSA100v4 Family Cluster LowPriority vCPUs"] == -1


def test_data_is_uploaded_once_and_a_version_never_changes(
    azure: Emulator, ml: MLClient, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}\n")
    first = ml.data.create_or_update(Data(name="rows", version="1", path=str(folder), type="uri_folder"))
    uploads = len(_uploads(azure))
    again = ml.data.create_or_update(Data(name="rows", version="1", path=str(folder), type="uri_folder"))
    assert first.path == again.path
    assert len(_uploads(azure)) == uploads
    (folder / "train.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(HttpResponseError, match="exists with other content"):
        ml.data.create_or_update(Data(name="rows", version="1", path=str(folder), type="uri_folder"))


def _uploads(azure: Emulator) -> list[str]:
    written = [entry for entry in azure.cloud.log.entries if (entry.plane, entry.method) == ("blob", "PUT")]
    return [entry.path for entry in written if entry.path.endswith("train.jsonl")]


def test_large_files_arrive_in_blocks_and_are_read_in_ranges(ml: MLClient, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(content)
    ml.models.create_or_update(Model(name="large", version="1", path=str(tmp_path / "model")))
    ml.models.download("large", "1", download_path=tmp_path / "back")
    assert (tmp_path / "back" / "large" / "model" / "weights.bin").read_bytes() == content


def test_whoever_brings_no_token_is_told_where_to_get_one(azure: Emulator) -> None:
    answer = requests.get(f"https://management.azure.com/subscriptions/{SUBSCRIPTION}", timeout=5)
    assert answer.status_code == 401
    assert tokens.TENANT in answer.headers["WWW-Authenticate"]
    answer = requests.get("https://shortlivedregistry.blob.core.windows.net/any", timeout=5)
    assert answer.status_code == 404


def test_a_connection_tells_its_keys_only_when_asked_for_them(
    azure: Emulator, arm: ResourceManagementClient, ml: MLClient, provisioned: str
) -> None:
    properties = {
        "authType": "CustomKeys",
        "category": "CustomKeys",
        "target": "_",
        "credentials": {"keys": {"key": "planted-0f3d"}},
        "metadata": {"endpoint": "https://any.invalid/score"},
    }
    connection_id = f"{provisioned}/connections/phi3-tuned"
    put(arm, connection_id, "2024-10-01", properties=properties)
    shown = arm.resources.get_by_id(connection_id, api_version="2024-10-01")
    assert "planted" not in str(shown.as_dict())
    assert ml.connections.get("phi3-tuned").metadata == properties["metadata"]
    told = requests.post(  # MLClient does not know credentials of this kind
        f"https://management.azure.com{connection_id}/listsecrets?api-version=2024-10-01",
        headers={"Authorization": f"Bearer {tokens.mint('arm')}"},
        timeout=5,
    )
    assert told.json()["properties"]["credentials"] == properties["credentials"]
    assert "planted" not in (azure.folder / "requests.jsonl").read_text()
    ml.connections.delete("phi3-tuned")
    assert list(ml.connections.list()) == []
