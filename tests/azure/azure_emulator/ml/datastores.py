"""A workspace's datastores, and their keys and signatures."""

import uuid

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.locations import ARTIFACTS, DEFAULT
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import BY_USER, fill, told
from azure_emulator.front.signatures import account_key, container_signature
from azure_emulator.front.wire import Document, Reply, Request
from azure_emulator.storage.file_shares import share_folder

KIND = f"{ML}/workspaces/datastores"
DATASTORES = f"{WORKSPACE}/datastores"


def create_default(cloud: Cloud, workspace: Document) -> None:
    """The four that every workspace has; their containers are named after the workspace's id."""
    account_id = workspace["properties"].get("storageAccount")
    if not account_id:
        return
    account, marker = account_id.rsplit("/", 1)[1], workspace["properties"]["workspaceId"]
    for name, container, kind in (
        (DEFAULT, f"azureml-blobstore-{marker}", "AzureBlob"),
        (ARTIFACTS, "azureml", "AzureBlob"),
        ("workspacefilestore", f"azureml-filestore-{marker}", "AzureFile"),
        ("workspaceworkingdirectory", f"code-{marker[:8]}", "AzureFile"),
    ):
        properties = {
            "datastoreType": kind,
            "isDefault": name == DEFAULT,
            "accountName": account,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
            "credentials": {"credentialsType": "AccountKey"},
            "containerName" if kind == "AzureBlob" else "fileShareName": container,
        }
        resource_id = f"{workspace['id']}/datastores/{name}"
        old = cloud.store.get(resource_id)
        cloud.store.put(resource_document(resource_id, KIND, {"properties": properties}, old))
        if kind == "AzureBlob":
            cloud.blobs.create_container(account, container)
        else:
            share_folder(cloud, account, container).mkdir(parents=True, exist_ok=True)


def list_all(cloud: Cloud, request: Request) -> Reply:
    found = cloud.store.below(request.path, kind=KIND)
    if request.query.get("isDefault", "").lower() == "true":
        found = [item for item in found if item["properties"]["isDefault"]]
    return Reply(200, {"value": found})


def list_secrets(cloud: Cloud, request: Request) -> Reply:
    """The account's key, or a signature for the container where the client takes one that expires."""
    store = cloud.store.require(request.path.rsplit("/", 1)[0])["properties"]
    if request.json.get("expirableSecret") and store["datastoreType"] == "AzureBlob":
        token = container_signature(cloud, store["accountName"], store["containerName"])
        return Reply(200, {"secretsType": "Sas", "sasToken": f"?{token}"})
    return Reply(200, {"secretsType": "AccountKey", "key": account_key(cloud, store["accountName"])})


def start_upload(cloud: Cloud, request: Request) -> Reply:
    """A container of its own for an asset that is to be uploaded, and a signature for it."""
    workspace = cloud.store.require(arm.workspace_id(request))
    account_id = workspace["properties"]["storageAccount"]
    account = account_id.rsplit("/", 1)[1]
    container = f"{workspace['properties']['workspaceId']}-{uuid.uuid4().hex[:26]}"
    cloud.blobs.create_container(account, container)
    url = f"https://{account}.blob.core.windows.net/{container}"
    signed = {"credentialType": "SAS", "sasUri": f"{url}?{container_signature(cloud, account, container)}"}
    return Reply(
        200,
        {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "None",
            "blobReferenceForConsumption": {
                "blobUri": f"https://{account}.blob.core.windows.net:443/{container}",
                "storageAccountArmId": account_id,
                "credential": signed,
            },
        },
    )


def _shape(store: Document, version: str) -> None:
    """From 2024-07 on it is not told who made it."""
    told(store, *(MADE if version >= "2024-07" else BY_USER))
    by = {"createdByType": "Application", "lastModifiedByType": "Application"}
    store["systemData"] |= {name: kind for name, kind in by.items() if name in store["systemData"]}
    parts = store["id"].split("/")
    place = {"subscriptionId": parts[2], "resourceGroup": parts[4]}
    fill(store["properties"], {**dict.fromkeys(("description", "tags", "properties")), **place})
    if version < "2024-07":
        fill(store["properties"], {"intellectualProperty": None})


MADE = ("createdAt", "lastModifiedAt", "lastModifiedBy", "lastModifiedByType")
SHAPES = {KIND: _shape}
ROUTES = [
    managed("GET", DATASTORES, list_all),
    managed("GET", f"{DATASTORES}/{{datastore}}", arm.get),
    managed("POST", f"{DATASTORES}/{{datastore}}/listSecrets", list_secrets),
]
