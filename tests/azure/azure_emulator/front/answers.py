"""Answers in the form that Azure gives them: every property of a type, null where there is nothing to say.

A shape changes a copy of what the store holds, so a client sees Azure's form and the store keeps ours.
Which properties there are comes from the recordings in `tests/azure/recorded`.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from azure_emulator.front.wire import Document, Reply

Shape = Callable[[Document, str], None]  # the resource, and the API version that was asked for
OWN = "emulator"  # properties that begin so are the emulator's own
USER = "Emulator user"
BY_USER = (
    "createdAt",
    "createdBy",
    "createdByType",
    "lastModifiedAt",
    "lastModifiedBy",
    "lastModifiedByType",
)


def shaped(reply: Reply, shapes: Mapping[str, Shape], version: str) -> Reply:
    """The reply with each resource in it, alone or in a list, in its type's shape; errors are left alone."""
    if not isinstance(reply.body, dict) or reply.status >= 400:
        return reply
    body = copy.deepcopy(reply.body)
    listed = body.get("value")
    for resource in [body, *(listed if isinstance(listed, list) else [])]:
        if isinstance(resource, dict) and isinstance(resource.get("properties"), dict):
            _hide_own(resource["properties"])
            shapes.get(str(resource.get("type")).lower(), _as_it_is)(resource, version)
    return replace(reply, body=body)


def _hide_own(properties: Document) -> None:
    for name in [name for name in properties if name.startswith(OWN)]:
        del properties[name]


def _as_it_is(_: Document, __: str) -> None:
    """For types of which no recording was read."""


def fill(document: Document, defaults: Mapping[str, Any]) -> None:
    """Add what is missing, also inside of objects that are there."""
    for name, default in defaults.items():
        if name not in document:
            document[name] = copy.deepcopy(default)
        elif isinstance(document[name], dict) and isinstance(default, dict):
            fill(document[name], default)


def told(resource: Document, *names: str) -> None:
    """Leave of `systemData` what this service tells."""
    known = resource.get("systemData") or {}
    by = {"createdBy": USER, "lastModifiedBy": USER, "lastModifiedByType": "User"}
    resource["systemData"] = {name: known.get(name, by.get(name)) for name in names}
