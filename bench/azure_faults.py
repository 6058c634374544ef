"""Every call of provision, train, deploy and promote fails once: does a rerun end where nothing had failed?

    make bench-azure-faults ARGS="--writes --rotate"

Against the emulator (tests/azure), with a one-second job and a small scoring server. Each call is met in
turn with 429, 500, a dropped connection, and the death of the process right after it. The command is then run
again. The end state must be that of the undisturbed run; on the second rollout a probe asks all the time.
"""

import argparse
import faulthandler
import gc
import inspect
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import requests

ROOT = Path(__file__).parents[1]
AZURE = ROOT / "tests" / "azure"
sys.path.insert(0, str(AZURE))

from azure_client import take  # noqa: E402 - needs the path
from azure_emulator.emulator import Emulator, Options  # noqa: E402
from azure_emulator.online_deployments import KIND as DEPLOYMENT  # noqa: E402
from azure_emulator.online_endpoints import KIND as ENDPOINT  # noqa: E402
from azure_emulator.store import Store  # noqa: E402
from azure_fakes import write_inputs  # noqa: E402

from phi3flow.files import read_jsonl  # noqa: E402
from phi3flow.phi3_contract import EndpointError  # noqa: E402

FORK = multiprocessing.get_context("fork")  # what is imported here is imported everywhere
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "error", "status": 429, "code": "TooManyRequests", "retry_after": 1},
    "500": {"kind": "error", "status": 500},
    "drop": {"kind": "drop", "when": "after"},
    "kill": {"kind": "signal", "signal": "SIGKILL", "when": "after"},
}
# Both rollouts: the first onto nothing, the second beside a live deployment.
STEPS = (("provision", 1), ("train", 1), ("deploy", 1), ("promote", 1), ("deploy", 2), ("promote", 2))
WRITES = {"PUT", "POST", "PATCH", "DELETE"}
SERVING = {ENDPOINT.lower(), DEPLOYMENT.lower()}
OURS = {"login", "control", "scoring"}  # planes that are not the SDK's calls to the cloud
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRIES = 4
AT_ONCE = 6
STEP_SECONDS = 120  # then its stacks go to the log, and the step counts as failed


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
    """What happened: cases by fault, and every way in which an end state was wrong."""

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
    """A forked process on the state in `folder`, until the block ends; gives its address."""
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
    """Make this process, and those it forks, a client of the emulator in `folder`."""
    for name, value in json.loads((folder / "environment.json").read_text()).items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    os.environ["PHI3FLOW_AZURE_SUBSCRIPTION"] = os.environ["AZURE_SUBSCRIPTION_ID"]


def run_step(step: str, work: Path, seed: int) -> int:
    """In a forked process, which may be killed; its exit code, 0 where the step is done."""
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
    """Every resource, where the traffic goes and what is behind it; ids that are drawn at random left out."""
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
    """Asks the endpoint, unpinned, as its users do, until `stop`."""

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
    from deploy.azure.serving import ask_at
    from deploy.azure.session import connect
    from phi3flow.settings import Settings

    cloud = connect(Settings.load(work))
    started = Probe(ask_at(cloud, cloud.names.endpoint("phi3-tuned"), None))
    started.start()
    return started


def calls_of(folder: Path, after: int) -> list[dict[str, Any]]:
    rows = read_jsonl(folder / "requests.jsonl")[after:]
    return [row for row in rows if row["plane"] not in OURS]


def disturbed(before: Path, wanted: dict[str, Any], case: Case, *, always_again: bool) -> Result:
    """One fault in one call of one step, from a copy of the state before it; then the same command again.

    `always_again` runs it again also where it got over the fault by itself. Makes this process a client of
    the copy's emulator.
    """
    step, seed, kind, (host, number) = case
    name = f"{step} {seed}, call {number} of {host}, {kind}"
    result = Result(Counter([kind]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        shutil.copytree(before, folder, symlinks=True)
        with emulator(folder / "cloud") as url:
            enter(folder / "cloud")
            asking = probe(folder / "work") if seed == 2 else None
            fault = {**FAULTS[kind], "host": host, "nth": number}
            requests.put(f"{url}/emulator/faults", json={"faults": [fault]}, timeout=10).raise_for_status()
            codes = [run_step(step, folder / "work", seed)]
            requests.put(f"{url}/emulator/faults", json={"faults": []}, timeout=10).raise_for_status()
            while codes[-1] or (always_again and len(codes) == 1):
                codes.append(run_step(step, folder / "work", seed))
                if len(codes) > TRIES:
                    break
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


def _difference(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    left, right = Counter(wanted["resources"]), Counter(found["resources"])
    parts = {"missing": left - right, "too many": right - left}
    told = [f"{name}: {', '.join(some)}" for name, some in parts.items() if some]
    return "; ".join([*told, *([] if wanted["traffic"] == found["traffic"] else [str(found["traffic"])])])


def walk(scratch: Path, args: argparse.Namespace) -> Result:
    """The undisturbed run, step by step; before each, every fault is tried on a copy."""
    result, state = Result(), scratch / "state"
    (state / "work").mkdir(parents=True)
    write_inputs(state / "work")
    kinds = list(FAULTS)
    for step, seed in STEPS:
        before = scratch / "before"
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(state, before, symlinks=True)
        with emulator(state / "cloud"):
            enter(state / "cloud")
            log = state / "cloud" / "requests.jsonl"
            if step == "deploy":  # its training belongs to it here: the second one is the next version
                assert run_step("train", state / "work", seed) == 0
                shutil.rmtree(before)
                shutil.copytree(state, before, symlinks=True)
            after = len(read_jsonl(log)) if log.exists() else 0
            assert run_step(step, state / "work", seed) == 0, (state / "work" / "steps.log").read_text()[
                -2000:
            ]
            calls = calls_of(state / "cloud", after)
            wanted = state_of(state / "cloud")
        chosen = list(_numbered(calls, writes=args.writes))
        print(f"{step} {seed}: {len(calls)} calls, {len(chosen)} disturbed", file=sys.stderr, flush=True)
        if args.step and f"{step}{seed}" not in args.step:
            continue
        cases = [
            Case(step, seed, kind, call)
            for position, call in enumerate(chosen)
            for kind in ([kinds[position % len(kinds)]] if args.rotate else kinds)
        ]
        for one in _side_by_side(cases, partial(disturbed, before, wanted, always_again=not args.rotate)):
            result.add(one)
    return result


def _side_by_side(cases: list[Case], disturb: Callable[[Case], Result]) -> Iterator[Result]:
    """Each case in a process of its own: they spend their time in the SDKs' pauses between retries."""
    with ProcessPoolExecutor(AT_ONCE, mp_context=FORK) as pool:
        yield from pool.map(disturb, cases)


def _numbered(calls: list[dict[str, Any]], *, writes: bool) -> Iterator[Call]:
    """Each call as the nth to its host: the probe's own questions, to another host, do not count."""
    counted: Counter[str] = Counter()
    for call in calls:
        counted[call["host"]] += 1
        if not writes or call["method"] in WRITES:
            yield Call(call["host"], counted[call["host"]])


def _warm_up() -> None:
    """What forked children then have already: the SDKs, and what `inspect.stack` reads of every module."""
    import azure.ai.ml
    import azure.identity  # noqa: F401

    inspect.stack()  # azure-ai-ml calls it whenever a client is made
    gc.freeze()  # a collection would copy these pages into every child


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", action="store_true", help="only calls that change something")
    parser.add_argument(
        "--rotate",
        action="store_true",
        help="one fault a call, each kind in its turn; again only if it failed",
    )
    parser.add_argument("--step", nargs="*", help="only these, such as deploy2")
    args = parser.parse_args()
    _warm_up()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="azure-faults-") as scratch:
        result = walk(Path(scratch), args)
    total = sum(result.cases.values())
    figures = {
        "bench": "azure-faults",
        "ours": total - len(result.wrong),
        "baseline": total,
        "ratio": round((total - len(result.wrong)) / max(total, 1), 4),
        "cases": dict(result.cases),
        "asked": result.asked,
        "unanswered": result.unanswered,
        "seconds": round(time.monotonic() - started),
        "wrong": result.wrong,
    }
    print(json.dumps(figures))
    return 1 if result.wrong or result.unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
