"""The processes that the emulated cloud runs: jobs and model servers. None outlives the emulator."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from phi3flow.core.process_guard import Guard

STOP_SECONDS = 5.0
OURS = ("AZURE_", "AZUREML_", "PHI3FLOW_", "PIP_")
PROXY = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


def clean_environment() -> dict[str, str]:
    """What a machine in the cloud has of this one's environment: nobody's settings, keys or proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OURS) and name.upper() not in PROXY
    }


class Workers:
    """Process groups, started and stopped from any thread."""

    def __init__(self) -> None:
        self._guard = Guard()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.closing = threading.Event()

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Output is added to `log`. Raises OSError where the program cannot be run."""
        with self._lock, log.open("ab") as stream:
            process = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
            self._guard.watch(process.pid)
        return process

    def stop(self, process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
        """Ask the whole group, wait for its leader, then kill what is left."""
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        _signal(process, signal.SIGKILL)
        process.wait()
        with self._lock:
            self._running.discard(process)

    def close(self) -> None:
        self.closing.set()
        with self._lock:
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            self.stop(process, STOP_SECONDS / 2)
        self._guard.dismiss()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
