"""Storage accounts as ARM resources; their blobs are at `blobs`, their file shares at `file_shares`."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, managed
from azure_emulator.cloud import Cloud
from azure_emulator.front.signatures import account_key
from azure_emulator.front.wire import Reply, Request, azure_error
from azure_emulator.storage import file_shares

KIND = "Microsoft.Storage/storageAccounts"
ACCOUNT = f"{GROUP}/providers/{KIND}/{{account}}"


def open_account(cloud: Cloud, resource_id: str) -> None:
    """Its name is a host name, so it is taken for everybody. Raise ARM's 409 where another holds it."""
    name = resource_id.rsplit("/", 1)[1]
    holder = cloud.store.read("storage-accounts", name)
    if holder and holder["id"].lower() != resource_id.lower():
        message = f"The storage account named {name} is already taken."
        raise azure_error(409, "StorageAccountAlreadyTaken", message)
    cloud.store.write("storage-accounts", name, {"id": resource_id})


def forget_accounts(cloud: Cloud, scope: str) -> None:
    """Accounts at or below an id that goes away, with their blobs and keys."""
    for name in cloud.store.keys("storage-accounts"):
        holder = str((cloud.store.read("storage-accounts", name) or {}).get("id", "")).lower()
        if holder == scope.lower() or holder.startswith(scope.lower() + "/"):
            cloud.blobs.delete_account(name)
            file_shares.forget(cloud, name)
            cloud.store.remove("storage-accounts", name)
            cloud.forget_secrets(f"storage/{name}")


def list_keys(cloud: Cloud, request: Request) -> Reply:
    cloud.store.require(request.path.rsplit("/", 1)[0])
    key = account_key(cloud, request["account"])
    return Reply(200, {"keys": [{"keyName": "key1", "permissions": "FULL", "value": key}]})


def delete(cloud: Cloud, request: Request) -> Reply:
    there = cloud.store.get(request.path)
    forget_accounts(cloud, request.path)
    cloud.store.delete(request.path)
    return Reply(200 if there else 204)


ROUTES = [
    managed("POST", f"{ACCOUNT}/listKeys", list_keys),
    managed("GET", ACCOUNT, arm.get),
    managed("DELETE", ACCOUNT, delete),
]
