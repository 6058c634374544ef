"""Make one call of one cloud step fail, then run the same command again.

Works on a copy of the state before that step. Emulator and commands are forked processes, so that they share
the parent's imports (the SDKs take seconds). `tests/azure` and its folder `support` must be on the path.
"""

import faulthandler
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import requests
from azure_client import take
from azure_emulator.arm.store import Store
from azure_emulator.emulator import Emulator, Options
from azure_emulator.endpoints.online_deployments import KIND as DEPLOYMENT
from azure_emulator.endpoints.online_endpoints import KIND as ENDPOINT

from deploy.azure.shared.serving import ask_at
from deploy.azure.shared.session import connect
from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import EndpointError

FORK = multiprocessing.get_context("fork")
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "error", "status": 429, "code": "TooManyRequests", "retry_after": 1},
    "500": {"kind": "error", "status": 500},
    "drop": {"kind": "drop", "when": "after"},
    "kill": {"kind": "signal", "signal": "SIGKILL", "when": "after"},
}
SERVING = {ENDPOINT.lower(), DEPLOYMENT.lower()}
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRIES = 4
STEP_SECONDS = 120  # then its stack traces go to the log and the step counts as failed


class Call(NamedTuple):
    """The nth request to a host."""

    host: str
    nth: int


class Case(NamedTuple):
    """One fault in one call of one step."""

    step: str
    seed: int
    kind: str
    call: Call


@dataclass
class Result:
    """The number of cases per fault, and every difference from the expected end state."""

    cases: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    asked: int = 0
    unanswered: int = 0

    def add(self, other: "Result") -> None:
        self.cases += other.cases
        self.wrong += other.wrong
        self.asked += other.asked
        self.unanswered += other.unanswered


@contextmanager
def emulator(folder: Path) -> Iterator[str]:
    """Run an emulator in a forked process on the state in `folder`; yields its address."""
    address, tell = multiprocessing.Pipe(duplex=False)
    running = FORK.Process(target=_serve, args=(folder, tell))
    running.start()
    try:
        yield str(address.recv())
    finally:
        running.terminate()
        running.join()


def _serve(folder: Path, tell: Connection) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Emulator(Options(folder)) as cloud:
        tell.send(cloud.url)
        stop.wait()


def enter(folder: Path) -> None:
    """Make this process and those it forks clients of the emulator in `folder`."""
    for name, value in json.loads((folder / "environment.json").read_text()).items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    os.environ["PHI3FLOW_AZURE_SUBSCRIPTION"] = os.environ["AZURE_SUBSCRIPTION_ID"]


def run_step(step: str, work: Path, seed: int) -> int:
    """Run a step in a forked process, which may be killed. Returns its exit code, 0 if the step is done."""
    child = FORK.Process(target=_child, args=(step, work, seed))
    child.start()
    child.join()
    return int(child.exitcode or 0)


def _child(step: str, work: Path, seed: int) -> None:
    log = os.open(work / "steps.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(STEP_SECONDS, exit=True)
    take(step, work, seed)


def state_of(cloud: Path) -> dict[str, Any]:
    """Every resource, the traffic and the deployments, without random ids."""
    store = Store(cloud / "state.sqlite")
    found = store.below("")
    store.close()
    counted = Counter(RANDOM.sub("ID", item["id"]) for item in found)
    asked = {one["id"]: one["properties"] for one in found if one["type"].lower() in SERVING}
    told = ("traffic", "provisioningState", "model")
    return {
        "resources": dict(counted),
        "traffic": {one: [properties.get(name) for name in told] for one, properties in asked.items()},
    }


class Probe(threading.Thread):
    """Asks the endpoint as its users do, without choosing a deployment, until `stop`."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.asked, self.unanswered = endpoint, 0, 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.asked += 1
            try:
                self.endpoint.complete([{"role": "user", "content": "Who founded Microsoft?"}])
            except EndpointError:
                self.unanswered += 1

    def stop(self) -> None:
        self.over.set()
        self.join()


def probe(work: Path) -> Probe:
    cloud = connect(Settings.load(work))
    started = Probe(ask_at(cloud, cloud.names.endpoint("phi3-tuned"), None))
    started.start()
    return started


def disturbed(before: Path, wanted: dict[str, Any], case: Case, *, always_again: bool) -> Result:
    """Run one case on a copy of the state `before` its step; `wanted` is the end state without the fault.

    `always_again` repeats the command even if it survived the fault. Makes this process a client of the
    copy's emulator.
    """
    name = f"{case.step} {case.seed}, call {case.call.nth} of {case.call.host}, {case.kind}"
    result = Result(Counter([case.kind]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        shutil.copytree(before, folder, symlinks=True)
        with emulator(folder / "cloud") as url:
            enter(folder / "cloud")
            asking = probe(folder / "work") if case.seed == 2 else None
            codes = _codes(url, folder / "work", case, always_again=always_again)
            if asking:
                asking.stop()
                result.asked, result.unanswered = asking.asked, asking.unanswered
            found = state_of(folder / "cloud")
        if codes[-1] or codes[0] == 1:
            name += "\n" + (folder / "work" / "steps.log").read_text()[-5000:]
    print(f"  {name}: {codes}", file=sys.stderr, flush=True)
    if codes[-1] or found != wanted:
        result.wrong.append(f"{name}: exit codes {codes}, {_difference(wanted, found)}")
        print(result.wrong[-1], file=sys.stderr, flush=True)
    return result


def _codes(url: str, work: Path, case: Case, *, always_again: bool) -> list[int]:
    """The exit codes of the step with the fault, and of its repetitions until it is done."""
    _plan(url, [{**FAULTS[case.kind], "host": case.call.host, "nth": case.call.nth}])
    codes = [run_step(case.step, work, case.seed)]
    _plan(url, [])
    while (codes[-1] and len(codes) <= TRIES) or (always_again and len(codes) == 1):
        codes.append(run_step(case.step, work, case.seed))
    return codes


def _plan(url: str, faults: list[dict[str, Any]]) -> None:
    requests.put(f"{url}/emulator/faults", json={"faults": faults}, timeout=10).raise_for_status()


def _difference(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    left, right = Counter(wanted["resources"]), Counter(found["resources"])
    parts = {"missing": left - right, "too many": right - left}
    told = [f"{name}: {', '.join(some)}" for name, some in parts.items() if some]
    return "; ".join([*told, *([] if wanted["traffic"] == found["traffic"] else [str(found["traffic"])])])
