"""What every handler works with."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from azure_emulator.arm.operations import Operations
from azure_emulator.arm.store import Store
from azure_emulator.endpoints.containers import Containers
from azure_emulator.endpoints.traffic import Traffic
from azure_emulator.endpoints.workers import Workers
from azure_emulator.flows.flow_runner import FlowRunner
from azure_emulator.front.faults import Schedule
from azure_emulator.front.request_log import RequestLog
from azure_emulator.ml.job_runner import JobRunner
from azure_emulator.storage.blob_store import BlobStore


@dataclass(frozen=True)
class Cloud:
    """`folder` holds everything that the emulated cloud keeps; `workers` are the processes it runs."""

    folder: Path
    store: Store
    operations: Operations
    blobs: BlobStore
    workers: Workers
    jobs: JobRunner
    flow_runs: FlowRunner
    containers: Containers
    traffic: Traffic
    faults: Schedule
    log: RequestLog

    def secret(self, name: str, *, renew: bool = False) -> str:
        """A random key that stays the same until it is renewed."""
        with self.store.lock:
            kept = self.store.read("secrets", name)
            if kept is None or renew:
                kept = {"value": secrets.token_urlsafe(48)}
                self.store.write("secrets", name, kept)
        return str(kept["value"])

    def forget_secrets(self, prefix: str) -> None:
        for name in self.store.keys("secrets", prefix):
            self.store.remove("secrets", name)
