"""Where a run of a flow leaves its outputs and its snapshot of the flow, in the workspace's blob store."""

import json
from pathlib import Path

from azure_emulator.arm.locations import DEFAULT, Place, resolve
from azure_emulator.arm.store import Store
from azure_emulator.front.wire import Document
from azure_emulator.storage.blob_store import BlobStore

OUTPUT_STORE = DEFAULT
PAGE_LINES = 25  # the service keeps the records of so many lines in one file


def artifacts(run: str) -> str:
    return f"promptflow/PromptFlowArtifacts/{run}"


def snapshots(run: str) -> str:
    return f"promptflow/Snapshots/{run}"


def place_of(store: Store, workspace: str, path: str) -> Place:
    return resolve(store, workspace, f"azureml://datastores/{OUTPUT_STORE}/paths/{path}")


def gather_pages(folder: Path) -> None:
    """Put the records of single lines, as Prompt flow writes them here, into pages, as the service does."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.jsonl"))]
    for path in folder.glob("*.jsonl"):
        path.unlink()
    pages: dict[int, list[str]] = {}
    for record in sorted(records, key=lambda record: record["line_number"]):
        pages.setdefault(record["line_number"] // PAGE_LINES, []).append(json.dumps(record) + "\n")
    for number, lines in pages.items():
        first = number * PAGE_LINES
        (folder / f"{first:09d}_{first + PAGE_LINES - 1:09d}.jsonl").write_text("".join(lines))


def snapshot_addresses(store: Store, blobs: BlobStore, workspace: str, run: str) -> Document:
    """A tree of the snapshot's files, each with its address."""
    account, container, prefix = place_of(store, workspace, snapshots(run))
    names = blobs.names(account, container, f"{prefix}/")
    base = f"https://{account}.blob.core.windows.net/{container}"
    children = {name: {"absoluteUrl": f"{base}/{name}", "children": {}} for name in names}
    return {"absoluteUrl": "", "children": children}
