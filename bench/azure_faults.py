"""Let every call of provision, train, deploy and promote fail once: does a rerun reach the same end state?

    make bench-azure-faults ARGS="--once"

Runs against the emulator (tests/azure), with a one-second job and a small scoring server. Each call gets 429,
500, a dropped connection and a killed process in turn; then the command runs again. The end state must be
that of a run without faults. During the second rollout a probe asks the endpoint all the time.
"""

import argparse
import gc
import inspect
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from azure_case import FAULTS, FORK, Call, Case, Result, disturbed, emulator, enter, run_step, state_of
from azure_fakes import write_inputs

from phi3flow.core.jsonl import read_jsonl

# Both rollouts: the first onto nothing, the second beside a live deployment.
STEPS = (("provision", 1), ("train", 1), ("deploy", 1), ("promote", 1), ("deploy", 2), ("promote", 2))
WRITES = {"PUT", "POST", "PATCH", "DELETE"}
OURS = {"login", "control", "scoring"}  # planes that are not the SDK's calls to the cloud
AT_ONCE = 6
Row = dict[str, Any]  # of the emulator's request log


def walk(scratch: Path, args: argparse.Namespace) -> Result:
    """A run without faults, step by step; before each step every fault is tried on a copy."""
    result, state, before = Result(), scratch / "state", scratch / "before"
    (state / "work").mkdir(parents=True)
    write_inputs(state / "work")
    for step, seed in STEPS:
        calls, wanted = _undisturbed(step, seed, state, before)
        chosen = list(_numbered(calls, once=args.once))
        print(f"{step} {seed}: {len(calls)} calls, {len(chosen)} disturbed", file=sys.stderr, flush=True)
        if args.step and f"{step}{seed}" not in args.step:
            continue
        cases = [Case(step, seed, *one) for one in _faults(chosen, once=args.once)]
        for one in _side_by_side(cases, partial(disturbed, before, wanted, always_again=not args.once)):
            result.add(one)
    return result


def _undisturbed(step: str, seed: int, state: Path, before: Path) -> tuple[list[Row], dict[str, Any]]:
    """Run one step after copying the state. Returns its calls to the cloud and the end state."""
    with emulator(state / "cloud"):
        enter(state / "cloud")
        if step == "deploy":  # its training belongs to it here: the second one is the next version
            _take("train", state, seed)
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(state, before, symlinks=True)
        log = state / "cloud" / "requests.jsonl"
        after = len(read_jsonl(log)) if log.exists() else 0
        _take(step, state, seed)
        return [row for row in read_jsonl(log)[after:] if row["plane"] not in OURS], state_of(state / "cloud")


def _take(step: str, state: Path, seed: int) -> None:
    said = state / "work" / "steps.log"
    assert run_step(step, state / "work", seed) == 0, said.read_text()[-2000:]


def _faults(calls: list[Call], *, once: bool) -> Iterator[tuple[str, Call]]:
    """Every fault in every call; with `once` one fault per call, in turn."""
    kinds = list(FAULTS)
    for position, call in enumerate(calls):
        for kind in [kinds[position % len(kinds)]] if once else kinds:
            yield kind, call


def _side_by_side(cases: list[Case], disturb: Callable[[Case], Result]) -> Iterator[Result]:
    """Run the cases in parallel processes: most of the time they wait between the SDKs' retries."""
    with ProcessPoolExecutor(AT_ONCE, mp_context=FORK) as pool:
        yield from pool.map(disturb, cases)


def _numbered(calls: list[Row], *, once: bool) -> Iterator[Call]:
    """Each call as the nth to its host. The probe asks another host, so its calls do not count.

    With `once`, repeated reads (polling) are one call.
    """
    counted: Counter[str] = Counter()
    read = set()
    for call in calls:
        counted[call["host"]] += 1
        what = (call["method"], call["host"], call["path"])
        if not (once and what in read):
            yield Call(call["host"], counted[call["host"]])
        if call["method"] not in WRITES:
            read.add(what)


def _warm_up() -> None:
    """Import the SDKs and fill the caches of `inspect.stack`, so that forked children have both."""
    import azure.ai.ml
    import azure.identity  # noqa: F401

    inspect.stack()  # azure-ai-ml calls it whenever a client is made
    gc.freeze()  # a collection would copy these pages into every child


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="one fault a call, each kind in its turn")
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
