"""A Hugging Face hub on loopback, as `huggingface_hub` 1.21 sees the real one, for a few small repositories.

What the client asks of it:

    GET  /api/models/ID[/revision/REV]        the commit, the list of files
    GET  /api/datasets/ID[/revision/REV]
    GET  /api/models/ID/tree/REV[/FOLDER]     the files with size and object id
    POST /api/models/ID/paths-info/REV        the same for given paths
    HEAD /ID/resolve/REV/PATH                 X-Repo-Commit, ETag, size; a large file is a redirect
    GET  /ID/resolve/REV/PATH                 the bytes, from any offset (Range)

A data set's files stand below /datasets/ID. Large files are kept elsewhere, as the hub keeps LFS objects:
their etag is the sha256 of the content, and stands in the redirect as X-Linked-Etag. Errors carry
X-Error-Code.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet")
_ADDRESS = re.compile(
    r"(?:/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|paths-info)/(?P<rev>[^/]+)(?:/(?P<path>.+))?)?"
    r"|(?P<set>/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<at>[^/]+)/(?P<file>.+))"
)


@dataclass
class Repository:
    """One commit of a model (`kind` models) or a data set (datasets). A gated one needs the token."""

    kind: str
    id: str
    files: dict[str, bytes]
    token: str | None = None
    commit: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha1(self.id.encode(), usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + content)
        self.commit = digest.hexdigest()

    def entry(self, path):
        """The file as the tree lists it."""
        content = self.files[path]
        listed = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path.endswith(LARGE):
            listed["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        return listed

    def tree(self, inside, *, recursive):
        """Folders and files below the path `inside`, which ends with a slash or is empty."""
        paths = [path for path in self.files if path.startswith(inside)]
        folders = {
            path[: at.start()] for path in paths for at in re.finditer("/", path) if at.end() > len(inside)
        }
        entries = [{"type": "directory", "path": path, "size": 0, "oid": git_hash(b"")} for path in folders]
        entries += [self.entry(path) for path in paths]
        return [entry for entry in entries if recursive or "/" not in entry["path"][len(inside) :]]


class Hub:
    """`with Hub(*repositories) as hub`: serves them at `hub.url`; `hub.asked` is what was asked for.

    `hub.cuts[NAME] = [count, ...]`: the next downloads of the file end after so many bytes each.
    """

    def __init__(self, *repositories):
        self.repositories = {(one.kind, one.id): one for one in repositories}
        self.objects = {sha256(data): data for one in repositories for data in one.files.values()}
        self.cuts = {}
        self.asked = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/objects/"):
            return self._bytes(hub.objects[path.split("/")[2]], path.split("/")[3])
        address = _ADDRESS.fullmatch(path)
        if not address:
            return self._refuse(404, "EntryNotFound")
        if address["file"]:
            kind = "datasets" if address["set"] else "models"
            repository = self._open(kind, address["repo"], address["at"])
            return repository and self._file(repository, address["file"])
        repository = self._open(address["kind"], address["id"], address["rev"] or "main")
        return repository and self._api(
            repository, address["verb"], address["path"], urlsplit(self.path).query
        )

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server calls

    def _open(self, kind, name, revision):
        """The repository, or None after an answer that says why not."""
        repository = self.server.hub.repositories.get((kind, name))
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None:  # the hub tells strangers nothing about private repositories
            return self._refuse(404 if given else 401, "RepoNotFound")
        if repository.token and given != repository.token:
            return self._refuse(403 if given else 401, "GatedRepo")
        if revision not in ("main", repository.commit):
            return self._refuse(404, "RevisionNotFound")
        return repository

    def _api(self, repository, verb, path, query):
        if verb == "tree":
            entries = repository.tree(f"{path}/" if path else "", recursive="recursive=true" in query.lower())
            return self._json(entries) if entries else self._refuse(404, "EntryNotFound")
        if verb == "paths-info":
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            is_json = "json" in self.headers.get("Content-Type", "")
            paths = json.loads(sent)["paths"] if is_json else parse_qs(sent).get("paths", [])
            return self._json([repository.entry(name) for name in paths if name in repository.files])
        told = {"id": repository.id, "sha": repository.commit, "private": False, "tags": []}
        told |= {"gated": "manual" if repository.token else False, "downloads": 0, "likes": 0}
        told |= {"siblings": [{"rfilename": name} for name in sorted(repository.files)]}
        return self._json(told)

    def _file(self, repository, name):
        commit = {"X-Repo-Commit": repository.commit}
        if name not in repository.files:
            return self._refuse(404, "EntryNotFound", commit)
        content = repository.files[name]
        if not name.endswith(LARGE):
            return self._bytes(content, name, commit | {"ETag": f'"{git_hash(content)}"'})
        key = sha256(content)
        headers = {"Location": f"{self.server.hub.url}/objects/{key}/{name.rpartition('/')[2]}"}
        headers |= {"X-Linked-Etag": f'"{key}"', "X-Linked-Size": str(len(content))}
        return self._answer(302, b"", commit | headers)

    def _bytes(self, content, name, headers=None):
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        body, status = content[start:], 206 if "Range" in self.headers else 200
        ranges = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if status == 206:
            ranges["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cuts = self.server.hub.cuts.get(name) if self.command == "GET" else None
        self.close_connection = bool(cuts)
        return self._answer(status, body, ranges | (headers or {}), send=cuts.pop(0) if cuts else None)

    def _json(self, value):
        return self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status, code, headers=None):
        return self._answer(status, b"{}", {"X-Error-Code": code} | (headers or {}))

    def _answer(self, status, body, headers, send=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:send])

    def log_message(self, *args):
        pass


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_hash(content):
    """The object id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
