"""Registries, vaults, insights: resources that only have to exist, be found, and go away again."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import GROUP, SUBSCRIPTION, managed
from azure_emulator.arm.resource_groups import require_open_group
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Document, Reply, Request, azure_error, kind_of
from azure_emulator.storage import key_vaults, storage_accounts

TEMPLATE = f"{GROUP}/providers/{{provider}}/{{kind}}/{{name}}"
# Their names are host names, so two accounts of Azure cannot have the same.
GLOBAL_NAMES = {"microsoft.containerregistry/registries", "microsoft.keyvault/vaults"}
OWN_PROPERTIES: dict[str, Document] = {
    "microsoft.containerregistry/registries": {"loginServer": "{name}.azurecr.io", "adminUserEnabled": False},
    "microsoft.cognitiveservices/accounts": {"endpoint": "https://{name}.cognitiveservices.azure.com/"},
    "microsoft.keyvault/vaults": {"vaultUri": "https://{name}.vault.azure.net/"},
}


def create(cloud: Cloud, resource_id: str, body: Document) -> Document:
    """Make or change one at once. Raise ARM's 409 for a name that is taken elsewhere."""
    kind = kind_of(resource_id)
    name = resource_id.rsplit("/", 1)[1]
    if kind.lower() == storage_accounts.KIND.lower():
        storage_accounts.open_account(cloud, resource_id)
    if kind.lower() in GLOBAL_NAMES and (holder := _holder(cloud, kind, name)) not in {
        "",
        resource_id.lower(),
    }:
        raise azure_error(
            409, "AlreadyInUse", f"The name {name} is already in use by {holder.split('/')[4]}."
        )
    if kind.lower() == key_vaults.KIND.lower():
        key_vaults.check_not_deleted(cloud, name, body)
    own = {
        key: value.format(name=name) if isinstance(value, str) else value
        for key, value in OWN_PROPERTIES.get(kind.lower(), {}).items()
    }
    resource = resource_document(
        resource_id, kind, body, cloud.store.get(resource_id), **own, provisioningState="Succeeded"
    )
    if kind.lower() == "microsoft.insights/components" and cloud.store.get(resource_id) is None:
        _make_alerts(cloud, resource_id)
    cloud.store.put(resource)
    return resource


def _make_alerts(cloud: Cloud, insights: str) -> None:
    """Application Insights' own alert rule and action group, without tags; they stay when it is deleted."""
    group, name = insights.split("/providers/", maxsplit=1)[0], insights.rsplit("/", 1)[1]
    alerts = (
        f"{group}/providers/microsoft.alertsmanagement/smartDetectorAlertRules/Failure Anomalies - {name}"
    )
    actions = f"{group}/providers/microsoft.insights/actiongroups/Application Insights Smart Detection"
    for resource_id in (alerts, actions):
        body = {"location": "global", "properties": {}}
        cloud.store.put(resource_document(resource_id, kind_of(resource_id), body, None))


def _holder(cloud: Cloud, kind: str, name: str) -> str:
    same = [item["id"].lower() for item in cloud.store.below("", kind=kind) if item["name"] == name]
    return same[0] if same else ""


def put(cloud: Cloud, request: Request) -> Reply:
    require_open_group(cloud, request)
    there = cloud.store.get(request.path)
    return Reply(200 if there else 201, create(cloud, request.path, request.json))


def patch(cloud: Cloud, request: Request) -> Reply:
    there, body = cloud.store.require(request.path), request.json
    there |= {name: body[name] for name in ("tags", "sku", "identity") if name in body}
    there["properties"] |= body.get("properties") or {}
    cloud.store.put(there)
    return Reply(200, there)


def delete(cloud: Cloud, request: Request) -> Reply:
    there = cloud.store.get(request.path)
    key_vaults.soft_delete(cloud, request.path)
    cloud.store.delete(request.path)
    return Reply(200 if there else 204)


def check_name(cloud: Cloud, request: Request) -> Reply:
    """`checkNameAvailability` of registries, storage accounts and vaults."""
    wanted = request.json
    taken = bool(_holder(cloud, wanted["type"], wanted["name"])) or bool(
        cloud.store.read("storage-accounts", wanted["name"])
    )
    answer: Document = {"nameAvailable": not taken}
    if taken:
        answer |= {"reason": "AlreadyExists", "message": f"The name {wanted['name']} is already in use."}
    return Reply(200, answer)


ROUTES = [
    managed("POST", f"{SUBSCRIPTION}/providers/{{provider}}/checkNameAvailability", check_name),
    managed("GET", TEMPLATE, arm.get),
    managed("HEAD", TEMPLATE, arm.head),
    managed("PUT", TEMPLATE, put),
    managed("PATCH", TEMPLATE, patch),
    managed("DELETE", TEMPLATE, delete),
]
