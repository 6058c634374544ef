"""The bytes of emulated storage accounts: content in files, what is known of it in the store."""

import base64
import hashlib
import shutil
import uuid
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path, PurePosixPath

from azure_emulator.arm.store import Store
from azure_emulator.front.wire import Document


class BlobStore:
    """Blobs by account, container and name. A blob appears whole or not at all."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def create_container(self, account: str, container: str) -> bool:
        """False where it exists."""
        with self._store.lock:
            if self._store.read("containers", f"{account}/{container}"):
                return False
            self._store.write("containers", f"{account}/{container}", {"etag": _etag()})
        return True

    def container(self, account: str, container: str) -> Document | None:
        return self._store.read("containers", f"{account}/{container}")

    def delete_container(self, account: str, container: str) -> None:
        for name in self.names(account, container):
            self.delete(account, container, name)
        self._store.remove("containers", f"{account}/{container}")

    def delete_account(self, account: str) -> None:
        for key in self._store.keys("containers", f"{account}/"):
            self.delete_container(account, key.split("/", 1)[1])

    def write(
        self, account: str, container: str, name: str, content: bytes, **properties: object
    ) -> Document:
        return self._keep(account, container, name, self._new_file(content), properties)

    def write_file(self, account: str, container: str, name: str, source: Path) -> Document:
        path = self.folder / uuid.uuid4().hex
        shutil.copyfile(source, path)
        return self._keep(account, container, name, path, {})

    def stage(self, account: str, container: str, name: str, block: str, content: bytes) -> None:
        """A block of a blob that is not there yet."""
        key = f"{account}/{container}/{name}\0{block}"
        self._store.write("blocks", key, {"file": self._new_file(content).name})

    def commit(
        self, account: str, container: str, name: str, blocks: Iterable[str], **properties: object
    ) -> Document | None:
        """The blob made of these blocks; None where one of them was never staged."""
        key = f"{account}/{container}/{name}\0"
        parts = [self._store.read("blocks", key + block) for block in blocks]
        if not all(parts):
            return None
        path = self.folder / uuid.uuid4().hex
        with path.open("wb") as whole:
            for part in parts:
                with (self.folder / str((part or {})["file"])).open("rb") as stream:
                    shutil.copyfileobj(stream, whole)
        for staged in self._store.keys("blocks", key):
            self._remove_file(self._store.read("blocks", staged))
            self._store.remove("blocks", staged)
        return self._keep(account, container, name, path, properties)

    def find(self, account: str, container: str, name: str) -> Document | None:
        return self._store.read("blobs", f"{account}/{container}/{name}")

    def change(self, account: str, container: str, name: str, **properties: object) -> Document | None:
        with self._store.lock:
            blob = self.find(account, container, name)
            if blob:
                blob |= {**properties, "etag": _etag(), "modified": formatdate(usegmt=True)}
                self._store.write("blobs", f"{account}/{container}/{name}", blob)
        return blob

    def path(self, blob: Document) -> Path:
        return self.folder / str(blob["file"])

    def delete(self, account: str, container: str, name: str) -> bool:
        blob = self.find(account, container, name)
        self._store.remove("blobs", f"{account}/{container}/{name}")
        self._remove_file(blob)
        return blob is not None

    def names(self, account: str, container: str, prefix: str = "") -> list[str]:
        start = f"{account}/{container}/"
        return sorted(key[len(start) :] for key in self._store.keys("blobs", start + prefix))

    def download(self, account: str, container: str, prefix: str, folder: Path) -> list[Path]:
        """A blob as `folder`/its own name, or all below a prefix with their paths; what was written."""
        prefix = prefix.strip("/")
        written = []
        for name in self.names(account, container, prefix):
            if name != prefix and prefix and not name.startswith(prefix + "/"):
                continue
            relative = PurePosixPath(name).name if name == prefix else name[len(prefix) :].lstrip("/")
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            blob = self.find(account, container, name)
            if blob:
                shutil.copyfile(self.path(blob), target)
                written.append(target)
        return written

    def upload_folder(self, account: str, container: str, prefix: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{prefix.strip('/')}/{path.relative_to(folder).as_posix()}"
                self.write_file(account, container, name, path)

    def _new_file(self, content: bytes) -> Path:
        path = self.folder / uuid.uuid4().hex
        path.write_bytes(content)
        return path

    def _keep(
        self, account: str, container: str, name: str, path: Path, properties: dict[str, object]
    ) -> Document:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "md5").digest()
        blob: Document = {
            "file": path.name,
            "size": path.stat().st_size,
            "md5": base64.b64encode(digest).decode(),
            "etag": _etag(),
            "modified": formatdate(usegmt=True),
            "content_type": "application/octet-stream",
            "metadata": {},
            **properties,
        }
        with self._store.lock:
            self._remove_file(self.find(account, container, name))
            self._store.write("blobs", f"{account}/{container}/{name}", blob)
        return blob

    def _remove_file(self, holder: Document | None) -> None:
        if holder:
            (self.folder / str(holder["file"])).unlink(missing_ok=True)


def _etag() -> str:
    return f'"0x8{uuid.uuid4().hex[:14].upper()}"'
