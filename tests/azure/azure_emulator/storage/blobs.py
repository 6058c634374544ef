"""Blob storage's REST interface, as far as azure-storage-blob uses it for artifacts."""

from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from azure_emulator.cloud import Cloud
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.signatures import is_allowed
from azure_emulator.front.wire import AzureError, Document, Reply, Request

VERSION = "2025-11-05"
METADATA = "x-ms-meta-"


def storage_error(status: int, code: str) -> AzureError:
    body = (
        f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    )
    return AzureError(
        Reply(status, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})
    )


def _place(cloud: Cloud, request: Request) -> tuple[str, str, str]:
    """Account, container and blob; raise what storage answers to a stranger or for a missing container."""
    account, container, name = (
        request.host.split(".")[0],
        request["container"],
        request.names.get("blob") or "",
    )
    if not cloud.store.read("storage-accounts", account):
        raise storage_error(404, "ResourceNotFound")
    if not is_allowed(cloud, request, account, container):
        raise storage_error(403, "AuthenticationFailed")
    creates = request.method == "PUT" and not name
    if not creates and cloud.blobs.container(account, container) is None:
        raise storage_error(404, "ContainerNotFound")
    return account, container, name


def put_container(cloud: Cloud, request: Request) -> Reply:
    account, container, _ = _place(cloud, request)
    if not cloud.blobs.create_container(account, container):
        raise storage_error(409, "ContainerAlreadyExists")
    return Reply(201, b"", {"x-ms-version": VERSION})


def get_container(cloud: Cloud, request: Request) -> Reply:
    account, container, _ = _place(cloud, request)
    if request.query.get("comp") == "list":
        return _list(cloud, request, account, container)
    found = cloud.blobs.container(account, container) or {}
    headers = {
        "ETag": found["etag"],
        "Last-Modified": "Fri, 20 Nov 2026 08:00:00 GMT",
        "x-ms-version": VERSION,
    }
    return Reply(200, b"", headers)


def _list(cloud: Cloud, request: Request, account: str, container: str) -> Reply:
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    items, folders = [], []
    for name in cloud.blobs.names(account, container, prefix):
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folders.append(prefix + rest.split(delimiter)[0] + delimiter)
        elif blob := cloud.blobs.find(account, container, name):
            items.append(_item(name, blob))
    folded = "".join(
        f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in dict.fromkeys(folders)
    )
    body = (
        f"<?xml version='1.0' encoding='utf-8'?><EnumerationResults ContainerName='{container}'>"
        f"<Prefix>{escape(prefix)}</Prefix><Blobs>{folded}{''.join(items)}</Blobs><NextMarker/>"
        "</EnumerationResults>"
    )
    return Reply(200, body.encode(), {"Content-Type": "application/xml", "x-ms-version": VERSION})


def _item(name: str, blob: Document) -> str:
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob["metadata"].items())
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{blob['modified']}</Last-Modified>"
        f"<Etag>{blob['etag'].strip(chr(34))}</Etag><Content-Length>{blob['size']}</Content-Length>"
        f"<Content-Type>{escape(blob['content_type'])}</Content-Type><Content-MD5>{blob['md5']}</Content-MD5>"
        f"<BlobType>BlockBlob</BlobType></Properties><Metadata>{metadata}</Metadata></Blob>"
    )


def put_blob(cloud: Cloud, request: Request) -> Reply:
    account, container, name = _place(cloud, request)
    operation = request.query.get("comp", "")
    if operation == "block":
        block = request.query["blockid"]
        cloud.blobs.stage(account, container, name, block, request.body)
        return Reply(201, b"", {"x-ms-version": VERSION})
    existing = cloud.blobs.find(account, container, name)
    _check_conditions(request, existing)
    if operation == "metadata":
        changed = cloud.blobs.change(account, container, name, metadata=_metadata(request))
        if changed is None:
            raise storage_error(404, "BlobNotFound")
        return Reply(200, b"", _written(changed))
    properties = {"metadata": _metadata(request), "content_type": _content_type(request)}
    if operation == "blocklist":
        blocks = [item.text or "" for item in ElementTree.fromstring(request.body)]  # noqa: S314  a test's own
        made = cloud.blobs.commit(account, container, name, blocks, **properties)
        if made is None:
            raise storage_error(400, "InvalidBlockList")
        return Reply(201, b"", _written(made))
    made = cloud.blobs.write(account, container, name, request.body, **properties)
    return Reply(201, b"", {**_written(made), "Content-MD5": made["md5"]})


def _check_conditions(request: Request, existing: Document | None) -> None:
    wanted = request.headers.get("If-Match")
    if request.headers.get("If-None-Match") == "*" and existing:
        raise storage_error(409, "BlobAlreadyExists")
    if wanted and wanted != "*" and (existing or {}).get("etag") != wanted:
        raise storage_error(412, "ConditionNotMet")


def get_blob(cloud: Cloud, request: Request) -> Reply:
    account, container, name = _place(cloud, request)
    blob = cloud.blobs.find(account, container, name)
    if blob is None:
        raise storage_error(404, "BlobNotFound")
    headers = {
        **_written(blob),
        "Content-Type": blob["content_type"],
        "x-ms-blob-type": "BlockBlob",
        "x-ms-server-encrypted": "true",
        "Accept-Ranges": "bytes",
        **{METADATA + key: value for key, value in blob["metadata"].items()},
    }
    if request.method == "HEAD":
        return Reply(200, b"", {**headers, "Content-Length": str(blob["size"]), "Content-MD5": blob["md5"]})
    return _content(request, cloud.blobs.path(blob), blob, headers)


def _content(request: Request, path: Path, blob: Document, headers: dict[str, str]) -> Reply:
    wanted = request.headers.get("x-ms-range") or request.headers.get("Range")
    size = int(blob["size"])
    if not wanted:
        return Reply(200, _read(path, 0, size), {**headers, "Content-MD5": blob["md5"]})
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start >= size:
        raise storage_error(416, "InvalidRange")
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Reply(206, _read(path, start, end + 1 - start), headers)


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def delete_blob(cloud: Cloud, request: Request) -> Reply:
    account, container, name = _place(cloud, request)
    if not cloud.blobs.delete(account, container, name):
        raise storage_error(404, "BlobNotFound")
    return Reply(202, b"", {"x-ms-version": VERSION})


def _metadata(request: Request) -> dict[str, str]:
    names = [name for name in request.headers if name.lower().startswith(METADATA)]
    return {name.lower().removeprefix(METADATA): request.headers[name] for name in names}


def _content_type(request: Request) -> str:
    return request.headers.get("x-ms-blob-content-type") or "application/octet-stream"


def _written(blob: Document) -> dict[str, str]:
    return {
        "ETag": blob["etag"],
        "Last-Modified": blob["modified"],
        "x-ms-version": VERSION,
        "x-ms-request-server-encrypted": "true",
    }


ROUTES = [
    Route("PUT", Plane.BLOB, "/{container}", put_container, serial=False),
    Route("GET", Plane.BLOB, "/{container}", get_container, serial=False),
    Route("HEAD", Plane.BLOB, "/{container}", get_container, serial=False),
    Route("PUT", Plane.BLOB, "/{container}/{blob*}", put_blob, serial=False),
    Route("GET", Plane.BLOB, "/{container}/{blob*}", get_blob, serial=False),
    Route("HEAD", Plane.BLOB, "/{container}/{blob*}", get_blob, serial=False),
    Route("DELETE", Plane.BLOB, "/{container}/{blob*}", delete_blob, serial=False),
]
