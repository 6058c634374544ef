"""Runs command jobs on this machine: code, inputs and outputs are folders; one thread for each job."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from azure_emulator.arm.locations import ARTIFACTS, Place, resolve
from azure_emulator.arm.store import Store, now, resource_document
from azure_emulator.endpoints.workers import Workers
from azure_emulator.front.wire import AzureError, Document
from azure_emulator.ml.image_builds import BuildFailed, ImageBuilds
from azure_emulator.ml.job_command import Workplace, fill, nodes_of, processes, seconds, split
from azure_emulator.ml.job_outputs import artifact_folder
from azure_emulator.storage.assets_on_disk import fetch
from azure_emulator.storage.blob_store import BlobStore

FINAL = {"Completed", "Failed", "Canceled"}
ACTIVE = {"Preparing", "Running", "Finalizing", "CancelRequested"}
WATCH_SECONDS = 0.05
BUILD_LOG = "azureml-logs/20_image_build_log.txt"


class JobFailed(Exception):
    """Why a job ends as Failed, as its run history says it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Canceled(Exception):
    """Somebody asked for it, or the job, its workspace or the emulator went away."""


class JobRunner:
    def __init__(
        self, store: Store, blobs: BlobStore, workers: Workers, folder: Path, *, images: ImageBuilds
    ) -> None:
        self._store, self._blobs, self._workers, self._folder = store, blobs, workers, folder
        self._images = images
        self._threads: list[threading.Thread] = []

    def start(self, job_id: str) -> None:
        thread = threading.Thread(
            target=self._run, args=(job_id,), name=job_id.rsplit("/", 1)[1], daemon=True
        )
        self._threads = [thread, *(item for item in self._threads if item.is_alive())]
        thread.start()

    def join(self) -> None:
        """Once the workers are closing: until every job's thread has seen it."""
        for thread in self._threads:
            thread.join()

    def fail(self, job_id: str, code: str, message: str) -> None:
        self._set(job_id, "Failed", endTimeUtc=now(), emulatorError={"code": code, "message": message})

    def publish_logs(self, job_id: str) -> None:
        """Copy the logs so far to where clients read them: the workspace's artifact store."""
        account, container, prefix = self.artifacts(job_id)
        logs = self._workplace(job_id).logs
        if logs.exists():
            self._blobs.upload_folder(account, container, prefix, logs)

    def log_names(self, job_id: str) -> list[str]:
        logs = self._workplace(job_id).logs
        return sorted(path.relative_to(logs).as_posix() for path in logs.rglob("*") if path.is_file())

    def artifacts(self, job_id: str) -> Place:
        workspace, name = split(job_id)
        uri = f"azureml://datastores/{ARTIFACTS}/paths/{artifact_folder(name)}"
        return resolve(self._store, workspace, uri)

    def _workplace(self, job_id: str) -> Workplace:
        workspace, name = split(job_id)
        return Workplace(self._folder / workspace.rsplit("/", 1)[1] / name)

    def _run(self, job_id: str) -> None:
        try:
            self._wait_for_nodes(job_id)
            self._build_image(job_id)
            self._execute(job_id)
            self._set(job_id, "Completed", endTimeUtc=now())
        except JobFailed as error:
            self.fail(job_id, error.code, str(error))
        except AzureError as error:
            told = error.reply.body if isinstance(error.reply.body, dict) else {}
            self.fail(job_id, "UserError", str(told.get("error", {}).get("message")))
        except OSError as error:
            self.fail(job_id, "SystemError", f"the emulator could not run the job: {error.strerror}")
        except Canceled:
            if self._workers.closing.is_set():
                return  # the next start finds it unfinished
            self._set(job_id, "Canceled", endTimeUtc=now())

    def _build_image(self, job_id: str) -> None:
        log = self._workplace(job_id).logs / BUILD_LOG
        try:
            self._images.build(
                self._require(job_id)["properties"].get("environmentId") or "",
                log,
                lambda: self._check(job_id),
            )
        except BuildFailed as error:
            told = f"Image build failed. For more details, check log file {BUILD_LOG}. {error}"
            raise JobFailed("UserError", told) from error

    def _wait_for_nodes(self, job_id: str) -> None:
        """Queued while other jobs hold the cluster's nodes."""
        while not self._take_nodes(job_id):
            self._check(job_id)
            time.sleep(WATCH_SECONDS)

    def _take_nodes(self, job_id: str) -> bool:
        with self._store.lock:
            job = self._require(job_id)
            compute = self._store.get(compute_of(job))
            if compute:
                scale = compute["properties"]["properties"].get("scaleSettings") or {}
                limit, wanted = int(scale.get("maxNodeCount", 1)), nodes_of(job)
                if wanted > limit:
                    raise JobFailed(
                        "UserError", f"The job needs {wanted} nodes; the cluster has at most {limit}."
                    )
                if self.nodes_in_use(compute["id"]) + wanted > limit:
                    self._set(job_id, "Queued")
                    return False
            self._set(job_id, "Preparing", startTimeUtc=now())
        return True

    def nodes_in_use(self, compute_id: str) -> int:
        jobs = self._store.below("", kind="Microsoft.MachineLearningServices/workspaces/jobs")
        return sum(
            nodes_of(job)
            for job in jobs
            if compute_of(job).lower() == compute_id.lower() and job["properties"]["status"] in ACTIVE
        )

    def _execute(self, job_id: str) -> None:
        job, place = self._require(job_id), self._workplace(job_id)
        workspace = split(job_id)[0]
        if code := job["properties"].get("codeId"):
            fetch(self._store, self._blobs, workspace, code, place.root / "fetched").rename(place.code)
        place.make()
        values = {f"inputs.{key}": value for key, value in self._inputs(job, place, workspace)}
        folders = {
            key: place.root / "outputs" / key for key in job["properties"]["outputs"] if key != "default"
        }
        values |= {f"outputs.{key}": str(self._make_output(job, key, path)) for key, path in folders.items()}
        self._set(job_id, "Running")
        self._run_command(job, place, fill(job["properties"]["command"], values))
        self._set(job_id, "Finalizing")
        self._keep_outputs(job, place, workspace, folders)
        self.publish_logs(job_id)

    def _inputs(self, job: Document, place: Workplace, workspace: str) -> Iterator[tuple[str, str]]:
        """Literals as they are, data as the path of its copy."""
        for key, declared in (job["properties"].get("inputs") or {}).items():
            if declared.get("jobInputType") == "literal":
                yield key, str(declared["value"])
            elif declared.get("uri"):
                folder = place.root / "inputs" / key
                yield key, str(fetch(self._store, self._blobs, workspace, declared["uri"], folder))

    def _make_output(self, job: Document, key: str, path: Path) -> Path:
        """A folder that is there, or a file's path in one that is."""
        if job["properties"]["outputs"][key].get("jobOutputType") == "uri_file":
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            path.mkdir(parents=True, exist_ok=True)
        return path

    def _run_command(self, job: Document, place: Workplace, command: str) -> None:
        running: list[subprocess.Popen[bytes]] = []
        limit = seconds((job["properties"].get("limits") or {}).get("timeout"))
        deadline = time.monotonic() + limit if limit else None
        try:
            for log, environment in processes(job, place):
                log.touch()
                shell = ["bash", "-c", command]
                running.append(
                    self._workers.start(shell, environment=environment, folder=place.code, log=log)
                )
            self._watch(job["id"], running, deadline)
        finally:
            for process in running:
                self._workers.stop(process)

    def _watch(self, job_id: str, running: list["subprocess.Popen[bytes]"], deadline: float | None) -> None:
        while True:
            codes = [process.poll() for process in running]
            if any(codes):
                code = next(code for code in codes if code)
                raise JobFailed(
                    "UserError", f"Execution failed. User process exited with status code {code}."
                )
            if None not in codes:
                return
            if deadline and time.monotonic() > deadline:
                raise JobFailed("JobTimeout", "The job ran longer than its limit.")
            self._check(job_id)
            time.sleep(WATCH_SECONDS)

    def _check(self, job_id: str) -> None:
        job = self._store.get(job_id)
        if self._workers.closing.is_set() or not job or job["properties"]["status"] == "CancelRequested":
            raise Canceled

    def _keep_outputs(
        self, job: Document, place: Workplace, workspace: str, folders: dict[str, Path]
    ) -> None:
        for key, path in folders.items():
            account, container, prefix = resolve(
                self._store, workspace, job["properties"]["outputs"][key]["uri"]
            )
            if path.is_file():
                self._blobs.write_file(account, container, prefix.rstrip("/"), path)
            else:
                self._blobs.upload_folder(account, container, prefix, path)
            if asset := job["properties"]["outputs"][key].get("assetName"):
                self._register(workspace, asset, job["properties"]["outputs"][key]["uri"])
        if (own := place.code / "outputs").is_dir():
            account, container, prefix = self.artifacts(job["id"])
            self._blobs.upload_folder(account, container, f"{prefix}/outputs", own)

    def _register(self, workspace: str, asset: str, uri: str) -> None:
        """As the service does for an output with an asset's name: version 1 of a model, without our tags."""
        properties = {"modelUri": uri, "modelType": "mlflow_model", "flavors": {}, "stage": None}
        counted = {"latestVersion": "1", "nextVersion": "2"}
        for path, kind, held in (
            (f"models/{asset}", "models", counted),
            (f"models/{asset}/versions/1", "models/versions", properties),
        ):
            whole = f"Microsoft.MachineLearningServices/workspaces/{kind}"
            self._store.put(resource_document(f"{workspace}/{path}", whole, {"properties": held}, None))

    def _require(self, job_id: str) -> Document:
        self._check(job_id)
        return self._store.require(job_id)

    def _set(self, job_id: str, status: str, **properties: object) -> None:
        """Nothing for a job that was deleted meanwhile, or that is to be canceled and not at its end."""
        with self._store.lock:
            job = self._store.get(job_id)
            if job is None or (job["properties"]["status"] == "CancelRequested" and status not in FINAL):
                return
            with self._store.changing(job_id) as kept:
                kept.update(properties, status=status)


def compute_of(job: Document) -> str:
    """The cluster's id, also where the job gives its name alone; empty without a cluster."""
    given = job["properties"].get("computeId") or ""
    return given if given.startswith("/") or not given else f"{split(job['id'])[0]}/computes/{given}"
