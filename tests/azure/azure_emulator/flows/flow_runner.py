"""Runs uploaded flows on this machine, one thread and one process tree for each run.

The flow's folder is copied from the file share, and Prompt flow runs it in an environment that holds nothing
but what the cloud's would: a login, and the way to the emulated cloud, where its connections are.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from azure_emulator.arm.store import Store, now
from azure_emulator.endpoints.workers import Workers, clean_environment
from azure_emulator.flows.flow_outputs import artifacts, gather_pages, place_of, snapshots
from azure_emulator.front.wire import AzureError, Document
from azure_emulator.storage.assets_on_disk import fetch
from azure_emulator.storage.blob_store import BlobStore
from custom_connections.promptflow_home import environment, prepare_home

FINAL = {"Completed", "Failed", "Canceled"}
WATCH_SECONDS = 0.05
WORKER = Path(__file__).with_name("flow_worker.py")
LINES_AT_A_TIME = 2


class RunFailed(Exception):
    """Why a run ends as Failed, as its history says it."""


class Canceled(Exception):
    """Somebody asked for it, or the emulator goes away."""


def key_of(workspace: str, name: str) -> str:
    return f"{workspace.lower()}/{name}"


class FlowRunner:
    """`client` gives the environment by which a process reaches the emulated cloud."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        workers: Workers,
        folder: Path,
        client: Callable[[], Mapping[str, str]],
    ) -> None:
        self._store, self._blobs, self._workers = store, blobs, workers
        self._folder, self._client = folder, client
        self._threads: list[threading.Thread] = []

    def start(self, run: Document, flow: Path) -> None:
        thread = threading.Thread(target=self._run, args=(run, flow), daemon=True)
        self._threads = [thread, *(item for item in self._threads if item.is_alive())]
        thread.start()

    def join(self) -> None:
        """Once the workers are closing: until every run's thread has seen it."""
        for thread in self._threads:
            thread.join()

    def log(self, run: Document) -> str:
        log = self._place(run) / "log.txt"
        return log.read_text(errors="replace") if log.exists() else ""

    def set(self, run: Document, **values: object) -> None:
        with self._store.lock:
            key = key_of(run["workspace"], run["name"])
            self._store.write("flow-runs", key, {**(self._store.read("flow-runs", key) or run), **values})

    def _place(self, run: Document) -> Path:
        return self._folder / run["workspace"].rsplit("/", 1)[1] / run["name"]

    def _run(self, run: Document, flow: Path) -> None:
        try:
            self._execute(run, flow)
            self.set(run, status="Completed", ended=now())
        except RunFailed as error:
            self.set(run, status="Failed", ended=now(), error=str(error))
        except AzureError as error:
            told = error.reply.body if isinstance(error.reply.body, dict) else {}
            self.set(run, status="Failed", ended=now(), error=str(told.get("error", {}).get("message")))
        except Canceled:
            if not self._workers.closing.is_set():
                self.set(run, status="Canceled", ended=now())

    def _execute(self, run: Document, flow: Path) -> None:
        place = self._place(run)
        place.mkdir(parents=True)
        self.set(run, status="Preparing", started=now())
        shutil.copytree(flow, place / "flow")
        data = fetch(self._store, self._blobs, run["workspace"], run["dataUri"], place / "data")
        self.set(run, status="Running")
        result = self._work(run, place, data)
        self.set(run, status="Finalizing", metrics=result["metrics"])
        self._keep(run, Path(result["folder"]), flow)

    def _work(self, run: Document, place: Path, data: Path) -> Document:
        request = {
            "flow": str(place / "flow"),
            "data": str(data),
            "name": run["name"],
            "mapping": run["inputsMapping"],
            "output": str(place / "runs"),
            "result": str(place / "result.json"),
        }
        (place / "request.json").write_text(json.dumps(request))
        prepare_home(place / "home")
        with (place / "home" / "pf.yaml").open("a") as config:
            config.write(f"connection:\n  provider: azureml:/{run['workspace']}\n")
        client = {name: value for name, value in self._client().items() if value}
        variables = {**clean_environment(), **environment(place / "home", "", LINES_AT_A_TIME), **client}
        command = [sys.executable, str(WORKER), str(place / "request.json")]
        process = self._workers.start(command, environment=variables, folder=place, log=place / "log.txt")
        try:
            self._watch(run, process)
        finally:
            self._workers.stop(process)
        result: Document = json.loads(Path(request["result"]).read_text())
        if result["error"]:
            raise RunFailed(result["error"])
        return result

    def _watch(self, run: Document, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            now_stored = self._store.read("flow-runs", key_of(run["workspace"], run["name"]))
            if self._workers.closing.is_set() or (now_stored or {}).get("status") == "CancelRequested":
                raise Canceled
            time.sleep(WATCH_SECONDS)
        if process.returncode:
            raise RunFailed(f"The run's process exited with status code {process.returncode}.")

    def _keep(self, run: Document, folder: Path, flow: Path) -> None:
        gather_pages(folder / "flow_artifacts")
        for name in ("flow_artifacts", "flow_outputs"):
            place = place_of(self._store, run["workspace"], f"{artifacts(run['name'])}/{name}")
            self._blobs.upload_folder(*place, folder / name)
        self._blobs.upload_folder(*place_of(self._store, run["workspace"], snapshots(run["name"])), flow)
