"""The containers behind deployments: one process each, watched by one thread that probes and restarts it."""

import http.client
import shutil
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from azure_emulator.arm.operations import Operations
from azure_emulator.arm.store import Store
from azure_emulator.endpoints import local_python
from azure_emulator.endpoints.probes import Probe
from azure_emulator.endpoints.serving import COMMAND_VARIABLE, Serving, choose
from azure_emulator.endpoints.workers import Workers, clean_environment
from azure_emulator.front.ports import free_port
from azure_emulator.front.wire import AzureError, Document
from azure_emulator.ml.image_builds import BuildFailed, ImageBuilds
from azure_emulator.storage.assets_on_disk import fetch
from azure_emulator.storage.blob_store import BlobStore

WATCH_SECONDS = 0.05
RESTART_SECONDS = 0.2
CRASHES = 3  # before a deployment that never was ready is given up


@dataclass
class Container:
    """One version of a deployment, as it runs now. `ready` says whether it may be asked.

    `created` is the deployment's, to tell it from a later one of the same name.
    """

    created: str

    serving: Serving
    port: int
    log: Path
    folder: Path
    environment: dict[str, str] = field(repr=False)
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    crashes: int = 0


class ContainerFailed(Exception):
    """Why a deployment is not healthy, in Azure's words as far as they are known."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Containers:
    """By the deployment's id in lower case; a new version serves once it is ready, the old one until then."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        workers: Workers,
        operations: Operations,
        folder: Path,
        *,
        images: ImageBuilds,
    ) -> None:
        self._store, self._blobs, self._workers, self._operations = store, blobs, workers, operations
        self._images, self._folder = images, folder
        self._lock = threading.Lock()
        self._serving: dict[str, Container] = {}
        self._threads: list[threading.Thread] = []

    def start(self, deployment_id: str, operation: str | None) -> None:
        """Start what the deployment now asks for; `operation` ends when it is ready, or has failed."""
        thread = threading.Thread(target=self._run, args=(deployment_id, operation), daemon=True)
        self._threads = [thread, *(item for item in self._threads if item.is_alive())]
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def find(self, deployment_id: str) -> Container | None:
        """The container that may be asked now."""
        with self._lock:
            container = self._serving.get(deployment_id.lower())
        return container if container and container.ready else None

    def log(self, deployment_id: str) -> str:
        path = self._place(deployment_id) / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _place(self, deployment_id: str) -> Path:
        parts = deployment_id.split("/")
        return self._folder / parts[-5] / parts[-3] / parts[-1]

    def _run(self, deployment_id: str, operation: str | None) -> None:
        container = None
        try:
            container = self._prepare(deployment_id)
            self._until_ready(deployment_id, container)
            self._swap(deployment_id, container)
            if operation:
                self._operations.finish(operation)
            self._keep_alive(deployment_id, container)
        except ContainerFailed as error:
            self._fail(operation, error.code, str(error))
        except BuildFailed as error:
            self._fail(operation, "ImageBuildFailure", f"Image build failed. {error}")
        except AzureError as error:
            told = error.reply.body if isinstance(error.reply.body, dict) else {}
            self._fail(operation, "ResourceNotFound", str(told.get("error", {}).get("message")))
        except (OSError, ValueError, LookupError) as error:  # no such program; a command that is none
            self._fail(operation, "ResourceNotReady", f"The container cannot be started: {error}")
        finally:
            if container:
                self._drop(deployment_id, container)

    def _fail(self, operation: str | None, code: str, message: str) -> None:
        """A deployment that was about to serve when the emulator stopped goes on at the next start."""
        if operation and not self._workers.closing.is_set():
            self._operations.finish(operation, (code, message))

    def _prepare(self, deployment_id: str) -> Container:
        """The mounted model, the command and its environment."""
        deployment = self._store.require(deployment_id)
        properties, created = deployment["properties"], _created(deployment)
        workspace, place = deployment_id.partition("/onlineEndpoints/")[0], self._place(deployment_id)
        folder, port = place / uuid.uuid4().hex[:8], free_port()
        model = folder / "model"
        model.mkdir(parents=True)
        image, log = str(properties.get("environmentId") or ""), place / "image_build_log.txt"
        self._images.build(image, log, lambda: self._require_there(deployment_id, created))
        if reference := _model_of(properties):
            fetch(self._store, self._blobs, workspace, reference, model)
        variables = {key: str(value) for key, value in (properties.get("environmentVariables") or {}).items()}
        script = None if COMMAND_VARIABLE in variables else self._script(properties, workspace, folder)
        serving = choose(variables, model, port, script)
        base = local_python.environment(local_python.create(folder / "python"), clean_environment())
        environment = {**base, "AZUREML_MODEL_DIR": str(model), **variables, **serving.environment}
        return Container(created, serving, port, place / "console.log", folder, environment)

    def _script(self, properties: Document, workspace: str, folder: Path) -> Path | None:
        """The scoring script in a copy of the deployment's code."""
        code = properties.get("codeConfiguration") or {}
        if not code.get("codeId"):
            return None
        return fetch(self._store, self._blobs, workspace, code["codeId"], folder / "code") / str(
            code["scoringScript"]
        )

    def _until_ready(self, deployment_id: str, container: Container) -> None:
        """Raise ContainerFailed after some crashes, or when the probes have asked often enough."""
        probe = Probe.of(self._store.require(deployment_id)["properties"].get("readinessProbe"))
        deadline = time.monotonic() + probe.patience
        while not self._answers(container):
            self._require_there(deployment_id, container.created)
            self._restart_if_dead(container)
            if container.crashes >= CRASHES:
                raise ContainerFailed(
                    "ResourceNotReady",
                    "User container has crashed or terminated. Please see troubleshooting guide, available "
                    "here: https://aka.ms/oe-tsg#error-resourcenotready",
                )
            if time.monotonic() > deadline:
                raise ContainerFailed(
                    "ResourceNotReady", "Readiness probe failed: the container gave no answer."
                )
            time.sleep(WATCH_SECONDS)

    def _keep_alive(self, deployment_id: str, container: Container) -> None:
        """Until the deployment is deleted, another version takes over, or the emulator stops."""
        while self._is_wanted(deployment_id, container):
            self._restart_if_dead(container)
            container.ready = container.process is not None and (container.ready or self._answers(container))
            time.sleep(WATCH_SECONDS)

    def _restart_if_dead(self, container: Container) -> None:
        if container.process is not None and container.process.poll() is None:
            return
        if container.process is not None:
            container.ready = False
            container.crashes += 1
            time.sleep(RESTART_SECONDS)
        container.process = self._workers.start(
            container.serving.command,
            environment=container.environment,
            folder=container.folder,
            log=container.log,
        )

    def _answers(self, container: Container) -> bool:
        if container.process is None or container.process.poll() is not None:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=2)
        try:
            connection.request("GET", container.serving.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _swap(self, deployment_id: str, container: Container) -> None:
        container.ready, container.crashes = True, 0
        with self._lock:
            self._serving[deployment_id.lower()] = container

    def _is_wanted(self, deployment_id: str, container: Container) -> bool:
        with self._lock:
            current = self._serving.get(deployment_id.lower())
        return current is container and self._exists(deployment_id, container.created)

    def _exists(self, deployment_id: str, created: str) -> bool:
        deployment = self._store.get(deployment_id)
        there = deployment is not None and _created(deployment) == created
        return there and not self._workers.closing.is_set()

    def _require_there(self, deployment_id: str, created: str) -> None:
        if not self._exists(deployment_id, created):
            raise ContainerFailed("Canceled", "The deployment was deleted.")

    def _drop(self, deployment_id: str, container: Container) -> None:
        with self._lock:
            if self._serving.get(deployment_id.lower()) is container:
                del self._serving[deployment_id.lower()]
        if container.process:
            self._workers.stop(container.process)
        shutil.rmtree(container.folder, ignore_errors=True)
        if self._store.get(deployment_id) is None:
            shutil.rmtree(self._place(deployment_id), ignore_errors=True)


def _created(deployment: Document) -> str:
    return str(deployment["systemData"]["createdAt"])


def _model_of(properties: Document) -> str:
    """The model's id: a string in some versions of the interface, an object in others."""
    model = properties.get("model") or ""
    return str(model.get("assetId", "")) if isinstance(model, dict) else str(model)
