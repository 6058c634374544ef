"""Locations in a workspace's storage, as jobs, models and data name them."""

import re
from typing import NamedTuple

from azure_emulator.arm.store import Store
from azure_emulator.front.wire import azure_error

DEFAULT = "workspaceblobstore"
ARTIFACTS = "workspaceartifactstore"
BLOB_URL = re.compile(
    r"https://(?P<account>[^.]+)\.blob\.core\.windows\.net(?::443)?/(?P<container>[^/]+)/?(?P<path>.*)"
)
STORE_URI = re.compile(r"azureml://.*?datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.*)")


def long_uri(workspace: str, uri: str, kind: str) -> str:
    """A datastore's URI with subscription, group and workspace in it; a folder's ends with a slash."""
    match = STORE_URI.fullmatch(uri)
    if match is None:
        return uri
    parts = workspace.split("/")
    place = f"azureml://subscriptions/{parts[2]}/resourcegroups/{parts[4]}/workspaces/{parts[-1]}"
    end = "/" if kind == "uri_folder" and not match["path"].endswith("/") else ""
    return f"{place}/datastores/{match['store']}/paths/{match['path']}{end}"


class Place(NamedTuple):
    """Where blobs lie: one blob, or all below `path`."""

    account: str
    container: str
    path: str


def resolve(store: Store, workspace: str, uri: str) -> Place:
    """Where a URI of a data asset, a model or a job's input points. Raise 400 for one of another kind."""
    uri = uri.partition("?")[0]
    if match := BLOB_URL.fullmatch(uri):
        return Place(match["account"], match["container"], match["path"])
    if match := STORE_URI.fullmatch(uri):
        found = store.require(f"{workspace}/datastores/{match['store']}")["properties"]
        return Place(found["accountName"], found["containerName"], match["path"])
    raise azure_error(400, "UserError", f"This location is not in the workspace's storage: {uri}")
