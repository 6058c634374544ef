"""The emulator as an object: start it, read where it listens, close it."""

import contextlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from azure_emulator.arm.operations import Operations
from azure_emulator.arm.store import Store
from azure_emulator.client import client_environment
from azure_emulator.cloud import Cloud
from azure_emulator.endpoints import online_deployments
from azure_emulator.endpoints.containers import Containers
from azure_emulator.endpoints.traffic import Traffic
from azure_emulator.endpoints.workers import Workers
from azure_emulator.flows import flow_runs
from azure_emulator.flows.flow_runner import FlowRunner
from azure_emulator.front.certificates import Certificates
from azure_emulator.front.faults import Schedule
from azure_emulator.front.proxy import Server
from azure_emulator.front.request_log import RequestLog
from azure_emulator.front.route_table import ROUTES, SHAPES
from azure_emulator.front.routing import Router
from azure_emulator.ml import jobs
from azure_emulator.ml.image_builds import ImageBuilds
from azure_emulator.ml.job_runner import JobRunner
from azure_emulator.storage.blob_store import BlobStore

PHASE_SECONDS = 0.03


@dataclass(frozen=True)
class Options:
    """`folder` keeps the state; `port` 0 takes the one of last time, or a free one.

    `resolve` has pip resolve every environment, as a build of its image would.
    """

    folder: Path
    port: int = 0
    phase_seconds: float = PHASE_SECONDS
    resolve: bool = False


class Emulator:
    """A context manager: everything that it started stops when the block ends."""

    def __init__(self, options: Options) -> None:
        folder = options.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificates = Certificates(folder)
        self.router = Router(ROUTES)
        self.shapes = SHAPES
        store = Store(folder / "state.sqlite")
        blobs, workers = BlobStore(store, folder / "blobs"), Workers()
        operations = Operations(store, options.phase_seconds)
        images = ImageBuilds(store, workers, resolve=options.resolve)
        self.cloud = Cloud(
            folder=folder,
            store=store,
            operations=operations,
            blobs=blobs,
            workers=workers,
            jobs=JobRunner(store, blobs, workers, folder / "jobs", images=images),
            flow_runs=FlowRunner(store, blobs, workers, folder / "flow-runs", lambda: self.environment),
            containers=Containers(store, blobs, workers, operations, folder / "deployments", images=images),
            traffic=Traffic(),
            faults=Schedule(),
            log=RequestLog(folder / "requests.jsonl"),
        )
        self._server = _listen(options.port or _last_port(folder), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs so that its SDKs reach this emulator, and nothing else."""
        return client_environment.variables(self.folder, self.url, self.certificates.authority)

    def start(self) -> Self:
        self._thread.start()
        client_environment.write(self.folder, self.environment)
        (self.folder / "emulator.json").write_text(json.dumps({"url": self.url}) + "\n")
        self.cloud.operations.resume()
        jobs.resume(self.cloud)
        flow_runs.resume(self.cloud)
        online_deployments.resume(self.cloud)
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.cloud.workers.close()
        self.cloud.jobs.join()
        self.cloud.flow_runs.join()
        self.cloud.containers.join()
        self.cloud.operations.close()
        self.cloud.log.close()
        self.cloud.store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _last_port(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        url = str(json.loads((folder / "emulator.json").read_text())["url"])
        return int(url.rsplit(":", 1)[1])
    return 0


def _listen(port: int, emulator: Emulator) -> Server:
    """On `port`; on a free one where something else has taken the port of last time."""
    try:
        return Server(port, emulator)
    except OSError:
        return Server(0, emulator)
