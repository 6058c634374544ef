"""Who may do what: the signed-in user owns the subscription, until a test gives other roles.

Actions follow from method and path, as Resource Manager names them. Definitions are those of Azure's built-in
roles, as far as phi3flow's calls go.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.front.wire import Request, azure_error

ML = "Microsoft.MachineLearningServices/workspaces"
VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
# What everybody may who has any role in the subscription.
ALWAYS = {"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/tenants/read"}


class Role(NamedTuple):
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()


ROLES = {
    "Owner": Role(("*",)),
    "Contributor": Role(("*",), ("Microsoft.Authorization/*/write", "Microsoft.Authorization/*/delete")),
    "Reader": Role(("*/read",)),
    "Role Based Access Control Administrator": Role(("*/read", "Microsoft.Authorization/roleAssignments/*")),
    "AzureML Data Scientist": Role(
        (f"{ML}/*/read", f"{ML}/*/action", f"{ML}/*/delete", f"{ML}/*/write"),
        (
            f"{ML}/delete",
            f"{ML}/write",
            f"{ML}/listKeys/action",
            f"{ML}/computes/*/write",
            f"{ML}/computes/*/delete",
            f"{ML}/computes/listKeys/action",
        ),
    ),
    "Managed Identity Operator": Role(
        (
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
        )
    ),
}


def give(cloud: Cloud, roles: Iterable[tuple[str, str]]) -> None:
    """From now on the user has these alone: names of roles and the scopes that they are given on."""
    cloud.store.write("settings", "roles", {"given": [[role, scope] for role, scope in roles]})


def require_allowed(cloud: Cloud, request: Request) -> None:
    """Raise ARM's 403 where no role of the user allows the request, or the identities that it names."""
    settings = cloud.store.read("settings", "roles")
    if settings is None:
        return
    for code, action, scope in _wanted(request):
        if action not in ALWAYS and not any(
            _covers(given, scope) and _allows(ROLES[role], action) for role, given in settings["given"]
        ):
            raise azure_error(
                403,
                code,
                f"The client 'user@emulator.invalid' with object id '{tokens.OBJECT_ID}' does not have "
                f"authorization to perform action '{action}' over scope '{scope}' or the scope is invalid.",
            )


def _wanted(request: Request) -> Iterator[tuple[str, str, str]]:
    """The action itself, and that of assigning each identity that a resource is to have."""
    yield "AuthorizationFailed", action_of(request.method, request.path), request.path
    if request.method == "PUT":
        identity = request.json.get("identity") or {}
        for scope in identity.get("userAssignedIdentities") or {}:
            kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
            yield "LinkedAuthorizationFailed", f"{kind}/assign/action", scope


def action_of(method: str, path: str) -> str:
    """`PUT .../providers/N/types/name` is N/types/write; a POST's last word is its own action."""
    parts = path.strip("/").rpartition("providers/")[2].split("/")
    if "providers/" not in path:
        parts = ["Microsoft.Resources", *parts]
    names = [parts[0], *parts[1::2]]
    if method == "POST":
        verb = parts[-1]
        return "/".join([*(names[:-1] if len(parts) % 2 == 0 else names), verb, "action"])
    return "/".join([*names, VERBS[method]])


def _covers(given: str, scope: str) -> bool:
    return f"{scope.lower()}/".startswith(f"{given.lower().rstrip('/')}/")


def _allows(role: Role, action: str) -> bool:
    return _any(role.actions, action) and not _any(role.not_actions, action)


def _any(patterns: tuple[str, ...], action: str) -> bool:
    """A star may stand for nothing: Managed Identity Operator's `*/assign/action` is `assign/action`, too."""
    texts = (re.escape(one).replace(r"/\*/", "/(?:.*/)?").replace(r"\*", ".*") for one in patterns)
    return any(re.fullmatch(text, action, re.IGNORECASE) for text in texts)
