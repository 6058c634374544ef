"""Key vaults that were deleted: their names stay taken until somebody purges or recovers them."""

from azure_emulator.arm.ids import SUBSCRIPTION, managed
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error

KIND = "Microsoft.KeyVault/vaults"
DELETED = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/{{location}}/deletedVaults/{{vault}}"


def soft_delete(cloud: Cloud, scope: str) -> None:
    """Remember every vault at or below an id that goes away."""
    found = [cloud.store.get(scope), *cloud.store.below(scope)]
    for vault in found:
        if vault and vault["type"].lower() == KIND.lower():
            cloud.store.write("deleted-vaults", vault["name"], vault)


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
    return Reply(200, {"id": request.path, "name": request["vault"], "properties": _require(cloud, request)})


def purge(cloud: Cloud, request: Request) -> Reply:
    _require(cloud, request)
    cloud.store.remove("deleted-vaults", request["vault"])
    return Reply(200)


def _require(cloud: Cloud, request: Request) -> Document:
    vault = cloud.store.read("deleted-vaults", request["vault"])
    if vault is None:
        message = f"The specified deleted vault '{request['vault']}' does not exist."
        raise azure_error(404, "DeletedVaultNotFound", message)
    return {"vaultId": vault["id"], "location": vault.get("location"), "tags": vault.get("tags") or {}}


ROUTES = [managed("GET", DELETED, get), managed("POST", f"{DELETED}/purge", purge)]
