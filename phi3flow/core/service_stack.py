"""Child processes that start, become ready and stop together.

    with Stack(endpoint, flow) as stack:  # both answer by now
        stack.wait()                      # until one dies (ServiceFailed) or Ctrl-C (KeyboardInterrupt)

Each service is a process group of its own: Ctrl-C in the terminal reaches this process alone, which stops all
of them, once, with everything they have started themselves. A service's output goes to its log.
"""

import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.process_guard import Guard

LOOPBACK = "127.0.0.1"
READY_SECONDS = 180.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.2
LOG_TAIL_LINES, LOG_TAIL_BYTES = 12, 4096
logger = logging.getLogger(__name__)
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServiceFailed(Phi3flowError):
    """A service died or never became ready; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Service:
    """A server to run: ready once GET `ready_path` on 127.0.0.1:`port` answers 200.

    `setting` names the field of Settings that chooses the port. `environment` is added to this process's own
    and may hold secrets; `command` and `log` may not.
    """

    name: str
    command: Sequence[str]
    port: int
    ready_path: str
    setting: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Stack:
    """Services that run while the `with` block does.

    All start at once and are asked to stop in reverse; what still runs after `stop_seconds` is killed.
    Entering raises BadInput for a port that is taken, ServiceFailed for a service that dies or is not ready
    in `ready_seconds`. SIGTERM and SIGHUP end the block as Ctrl-C does; for that it needs the main thread.
    """

    def __init__(
        self, *services: Service, ready_seconds: float = READY_SECONDS, stop_seconds: float = STOP_SECONDS
    ) -> None:
        self._services = services
        self._ready_seconds, self._stop_seconds = ready_seconds, stop_seconds
        self._running: list[tuple[Service, subprocess.Popen[bytes]]] = []
        self._holding = self._interrupted = False

    def __enter__(self) -> Self:
        require_free_ports(self._services)
        self._handlers = {number: signal.signal(number, self._interrupt) for number in INTERRUPTS}
        try:
            self._guard = Guard()
            for service in self._services:
                self._start(service)
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything. If a service died, raise that instead of the error it caused in the block."""
        self._holding = True
        death = None if isinstance(error, ServiceFailed) else self._death()
        self._stop()
        if isinstance(error, Exception) and death:
            raise death from error
        if error is None and self._interrupted:
            raise KeyboardInterrupt

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running service, by its name."""
        return {service.name: process.pid for service, process in self._running}

    def wait(self) -> NoReturn:
        """Block until a service ends by itself: ServiceFailed with the tail of its log."""
        while True:
            self._look()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """The same, but return once `condition` holds."""
        while not condition():
            self._look()

    def _look(self) -> None:
        self._check()
        time.sleep(POLL_SECONDS)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt once, but not while a process starts or stops: none is left behind."""
        self._interrupted = True
        if not self._holding:
            self._holding = True
            raise KeyboardInterrupt

    def _start(self, service: Service) -> None:
        logger.debug("starting %s: %s, its output in %s", service.name, service.command, service.log)
        service.log.parent.mkdir(parents=True, exist_ok=True)
        self._holding = True
        with service.log.open("wb") as log:
            try:
                process = subprocess.Popen(
                    service.command,
                    env={**os.environ, **service.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Phi3flowError(f"{service.name} cannot be started: {error.strerror}") from error
        self._running.append((service, process))
        self._guard.watch(process.pid)
        if self._interrupted:
            raise KeyboardInterrupt
        self._holding = False

    def _wait_ready(self) -> None:
        started = time.monotonic()
        waiting = list(self._services)
        while waiting:
            self._check()
            for service in [service for service in waiting if _answers(service)]:
                waiting.remove(service)
                say(f"{service.name}: ready on port {service.port} after {time.monotonic() - started:.0f} s")
            if waiting and time.monotonic() - started > self._ready_seconds:
                raise _failed(waiting[0], f"is not ready after {self._ready_seconds:.0f} s")
            time.sleep(POLL_SECONDS if waiting else 0)

    def _check(self) -> None:
        if death := self._death():
            raise death

    def _death(self) -> ServiceFailed | None:
        for service, process in self._running:
            if process.poll() is not None:
                return _failed(service, _ended(process.returncode))
        return None

    def _stop(self) -> None:
        """Send SIGTERM to all groups, last started first; kill what still runs after one deadline."""
        self._holding = True
        processes = [process for _, process in reversed(self._running)]
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + self._stop_seconds
        while any(_lives(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 10)
        for process in processes:
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._running.clear()
        if hasattr(self, "_guard"):
            self._guard.dismiss()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def require_free_ports(services: Iterable[Service]) -> None:
    """Raise BadInput with every port that is taken, by whom, and the settings that choose others."""
    problems: list[str] = []
    ways_out: list[str] = []
    names: dict[int, str] = {}
    for service in services:
        if service.port in names:
            problems.append(f"port {service.port} is set for both {names[service.port]} and {service.name}")
        elif not is_free(service.port):
            problems.append(f"port {service.port} for {service.name} is taken by {holder_of(service.port)}")
        else:
            names[service.port] = service.name
            continue
        ways_out.append(f"PHI3FLOW_{service.setting.upper()}=PORT or {service.setting} in phi3flow.toml")
    if problems:
        raise BadInput("\n".join(problems), hint="stop it, or choose another: " + "; ".join(ways_out))


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now; connections of an earlier server do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str:
    """The listening process as `name (pid N)`; 'another process' where the system does not tell."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:  # another user's process, or one that ended meanwhile
        pass
    return "another process"


def _answers(service: Service) -> bool:
    """Without `requests`, which would use a proxy from the environment."""
    connection = http.client.HTTPConnection(LOOPBACK, service.port, timeout=2)
    try:
        connection.request("GET", service.ready_path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; macOS: only zombies left
        os.killpg(process.pid, number)


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process or anything of its group still runs."""
    if process.poll() is None:
        return True
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _ended(code: int) -> str:
    return f"was stopped by {signal.Signals(-code).name}" if code < 0 else f"stopped with exit code {code}"


def _failed(service: Service, what: str) -> ServiceFailed:
    with service.log.open("rb") as stream:
        stream.seek(max(0, service.log.stat().st_size - LOG_TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    tail = "".join(f"\n  | {line}" for line in lines)
    return ServiceFailed(f"{service.name} {what}{tail}", hint=f"its log is {service.log}")
