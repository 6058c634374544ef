"""What every handler works with."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from azure_emulator.blob_store import BlobStore
from azure_emulator.containers import Containers
from azure_emulator.faults import Schedule
from azure_emulator.flow_runner import FlowRunner
from azure_emulator.job_runner import JobRunner
from azure_emulator.operations import Operations
from azure_emulator.request_log import RequestLog
from azure_emulator.store import Store
from azure_emulator.traffic import Traffic
from azure_emulator.workers import Workers


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
