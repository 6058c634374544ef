"""Azure Files' REST interface, as far as azure-storage-fileshare uses it to upload and remove a folder.

A share is a real folder below the state folder, so that whoever runs a flow finds its files there.
"""

import base64
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.signatures import is_allowed
from azure_emulator.front.wire import Reply, Request
from azure_emulator.storage.blobs import storage_error

TIME = "2026-11-20T08:00:00.0000000Z"
WRITTEN: Mapping[str, str] = {
    "ETag": '"0x8DE"',
    "Last-Modified": "Fri, 20 Nov 2026 08:00:00 GMT",
    "x-ms-version": "2025-11-05",
    "x-ms-request-server-encrypted": "true",
    "x-ms-file-permission-key": "1",
    "x-ms-file-creation-time": TIME,
    "x-ms-file-last-write-time": TIME,
    "x-ms-file-change-time": TIME,
    "x-ms-file-id": "1",
    "x-ms-file-parent-id": "0",
}
DIRECTORY = {**WRITTEN, "x-ms-file-attributes": "Directory"}
FILE = {**WRITTEN, "x-ms-file-attributes": "Archive"}


def share_folder(cloud: Cloud, account: str, share: str) -> Path:
    return cloud.folder / "shares" / account / share


def forget(cloud: Cloud, account: str) -> None:
    """All shares of an account that goes away."""
    shutil.rmtree(cloud.folder / "shares" / account, ignore_errors=True)


def _place(cloud: Cloud, request: Request) -> Path:
    """The path on this machine; raise what storage answers to a stranger or for a missing share."""
    account, share = request.host.split(".")[0], request["share"]
    parts = request["path"].strip("/").split("/")
    folder = share_folder(cloud, account, share)
    if not cloud.store.read("storage-accounts", account):
        raise storage_error(404, "ResourceNotFound")
    if not is_allowed(cloud, request, account, share):
        raise storage_error(403, "AuthenticationFailed")
    if not folder.is_dir():
        raise storage_error(404, "ShareNotFound")
    if ".." in parts:
        raise storage_error(400, "InvalidResourceName")
    return folder.joinpath(*parts)


def _is_directory(request: Request) -> bool:
    return request.query.get("restype") == "directory"


def put(cloud: Cloud, request: Request) -> Reply:
    place = _place(cloud, request)
    if not place.parent.is_dir():
        raise storage_error(404, "ParentNotFound")
    if _is_directory(request):
        return _make_directory(place)
    if request.query.get("comp") == "range":
        return _write_range(place, request)
    with place.open("wb") as stream:
        stream.truncate(int(request.headers["x-ms-content-length"]))
    return Reply(201, b"", FILE)


def _make_directory(place: Path) -> Reply:
    if place.exists():
        raise storage_error(409, "ResourceAlreadyExists")
    place.mkdir()
    return Reply(201, b"", DIRECTORY)


def _write_range(place: Path, request: Request) -> Reply:
    if not place.is_file():
        raise storage_error(404, "ResourceNotFound")
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    if request.headers.get("Content-MD5") not in {None, digest}:
        raise storage_error(400, "Md5Mismatch")
    start = int(request.headers["x-ms-range"].removeprefix("bytes=").split("-")[0])
    with place.open("r+b") as stream:
        stream.seek(start)
        stream.write(request.body)
    return Reply(201, b"", {**FILE, "Content-MD5": digest})


def get(cloud: Cloud, request: Request) -> Reply:
    """Properties of a directory or a file, what is in a directory, or a file's content."""
    place = _place(cloud, request)
    if not (place.is_dir() if _is_directory(request) else place.is_file()):
        raise storage_error(404, "ResourceNotFound")
    if _is_directory(request):
        return _list(place) if request.query.get("comp") == "list" else Reply(200, b"", DIRECTORY)
    content = place.read_bytes()
    if request.method == "HEAD":
        return Reply(200, b"", {**FILE, "Content-Length": str(len(content)), "x-ms-type": "File"})
    return _read_range(content, request.headers.get("x-ms-range") or "bytes=0-")


def _read_range(content: bytes, wanted: str) -> Reply:
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(content)), len(content) - 1)
    if start >= len(content):
        raise storage_error(416, "InvalidRange")
    place = {"Content-Range": f"bytes {start}-{end}/{len(content)}", "x-ms-type": "File"}
    return Reply(206, content[start : end + 1], {**FILE, **place})


def _list(place: Path) -> Reply:
    entries = "".join(
        f"<Directory><Name>{escape(item.name)}</Name><Properties/></Directory>"
        if item.is_dir()
        else f"<File><Name>{escape(item.name)}</Name><Properties>"
        f"<Content-Length>{item.stat().st_size}</Content-Length></Properties></File>"
        for item in sorted(place.iterdir())
    )
    body = (
        "<?xml version='1.0' encoding='utf-8'?><EnumerationResults>"
        f"<Entries>{entries}</Entries><NextMarker/></EnumerationResults>"
    )
    return Reply(200, body.encode(), {**WRITTEN, "Content-Type": "application/xml"})


def delete(cloud: Cloud, request: Request) -> Reply:
    """An empty directory, or a file."""
    place = _place(cloud, request)
    if not place.exists():
        raise storage_error(404, "ResourceNotFound")
    if place.is_dir() and any(place.iterdir()):
        raise storage_error(409, "DirectoryNotEmpty")
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink()
    return Reply(202, b"", WRITTEN)


ITEM = "/{share}/{path*}"
ROUTES = [
    Route("PUT", Plane.FILE, ITEM, put, serial=False),
    Route("GET", Plane.FILE, ITEM, get, serial=False),
    Route("HEAD", Plane.FILE, ITEM, get, serial=False),
    Route("DELETE", Plane.FILE, ITEM, delete, serial=False),
]
