"""Assets as the folders and files that a job or a container finds mounted."""

import re
import shutil
from pathlib import Path, PurePosixPath

from azure_emulator.arm.locations import resolve
from azure_emulator.arm.store import Store
from azure_emulator.front.wire import Document, azure_error
from azure_emulator.ml.job_outputs import resolve_job_output
from azure_emulator.ml.registry import catalog_model, is_of_registry
from azure_emulator.storage.blob_store import BlobStore

SHORT_ID = re.compile(r"azureml:(?P<name>[\w.-]+):(?P<version>[\w.-]+)")
URI_PROPERTIES = ("codeUri", "dataUri", "modelUri")


def find_asset(store: Store, workspace: str, reference: str) -> Document | None:
    """The asset that a reference names, by ARM id or by `azureml:NAME:VERSION`; None for a plain location."""
    reference = (
        reference.removeprefix("azureml:") if reference.startswith("azureml:/subscriptions") else reference
    )
    if reference.startswith("/subscriptions"):
        return store.require(reference)
    if match := SHORT_ID.fullmatch(reference):
        for family in ("data", "models"):
            found = store.get(f"{workspace}/{family}/{match['name']}/versions/{match['version']}")
            if found:
                return found
    return None


def fetch(store: Store, blobs: BlobStore, workspace: str, reference: str, folder: Path) -> Path:
    """Download what a reference names into `folder`: the file it is, or the folder it is.

    As in Azure, a folder keeps its last name below the mount. Raise 404 where nothing is there.
    """
    asset = find_asset(store, workspace, reference)
    uri = (
        next((asset["properties"][name] for name in URI_PROPERTIES if name in asset["properties"]), "")
        if asset
        else reference
    )
    if is_of_registry(uri):
        return Path(shutil.copytree(catalog_model(blobs.folder.parent / "registry", uri), folder))
    place = resolve(store, workspace, resolve_job_output(store, workspace, uri))
    path = place.path.strip("/")
    name = PurePosixPath(path).name
    is_blob = blobs.find(place.account, place.container, path) is not None
    target = folder if is_blob or not name else folder / name
    if not blobs.download(place.account, place.container, path, target):
        raise azure_error(404, "NotFound", f"Nothing is stored at {uri}.")
    return folder / name if name else folder
