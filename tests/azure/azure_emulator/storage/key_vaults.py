"""Key vaults that were deleted: their names stay taken until somebody purges or recovers them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from azure_emulator.arm.ids import SUBSCRIPTION, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import GENERIC
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error

KIND = "Microsoft.KeyVault/vaults"
KEPT_FOR = timedelta(days=90)
VAULTS = replace(GENERIC, provider="Microsoft.KeyVault")
ALL_DELETED = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault/deletedVaults"
DELETED = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/{{location}}/deletedVaults/{{vault}}"


def soft_delete(cloud: Cloud, scope: str) -> None:
    """Remember every vault at or below an id that goes away."""
    found = [cloud.store.get(scope), *cloud.store.below(scope)]
    for vault in found:
        if vault and vault["type"].lower() == KIND.lower():
            deleted = {**vault, "deleted": datetime.now(UTC).isoformat()}
            cloud.store.write("deleted-vaults", vault["name"], deleted)


def check_not_deleted(cloud: Cloud, name: str, body: Document) -> None:
    """Raise Azure's 409 for the name of a deleted vault, unless the request asks to recover it."""
    if cloud.store.read("deleted-vaults", name) is None:
        return
    if str((body.get("properties") or {}).get("createMode", "")).lower() != "recover":
        message = (
            "A vault with the same name already exists in deleted state. You need to either recover or purge "
            "existing key vault."
        )
        raise azure_error(409, "ConflictError", message)
    cloud.store.remove("deleted-vaults", name)


def get(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, _deleted(_require(cloud, request)))


def list_all(cloud: Cloud, request: Request) -> Reply:
    """Of the whole subscription."""
    found = [cloud.store.read("deleted-vaults", name) for name in cloud.store.keys("deleted-vaults")]
    return Reply(200, {"value": [_deleted(vault) for vault in found if vault]})


def _deleted(vault: Document) -> Document:
    location = vault.get("location")
    place = f"{'/'.join(vault['id'].split('/')[:3])}/providers/Microsoft.KeyVault/locations/{location}"
    deletion = datetime.fromisoformat(vault["deleted"])
    return {
        "id": f"{place}/deletedVaults/{vault['name']}",
        "name": vault["name"],
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": {
            "vaultId": vault["id"],
            "location": location,
            "tags": vault.get("tags") or {},
            "deletionDate": deletion.isoformat(),
            "scheduledPurgeDate": (deletion + KEPT_FOR).isoformat(),
        },
    }


def purge(cloud: Cloud, request: Request) -> Reply:
    _require(cloud, request)
    cloud.store.remove("deleted-vaults", request["vault"])
    operation = cloud.operations.begin(Ending(request.path))
    headers = cloud.operations.headers(operation, service=VAULTS, location=request["location"])
    return Reply(202, None, headers)


def _require(cloud: Cloud, request: Request) -> Document:
    vault = cloud.store.read("deleted-vaults", request["vault"])
    if vault is None:
        message = f"The specified deleted vault '{request['vault']}' does not exist."
        raise azure_error(404, "DeletedVaultNotFound", message)
    return vault


ROUTES = [
    managed("GET", ALL_DELETED, list_all),
    managed("GET", DELETED, get),
    managed("POST", f"{DELETED}/purge", purge),
]
