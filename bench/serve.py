"""Serving: our engines over HTTP, against `mlflow models serve` and against the engines without HTTP.

    make bench-serve [ARGS="--model DIR --rounds N --seconds S --subjects tiny large --clients 1 4 16 64"]

A closed loop at 1, 4, 16 and 64 clients asks every target in turn, once per round; then an open loop runs at
0.7 of the rate that each target reached with 16 clients. All servers run all the time; one is asked at a
time. Results are means over the rounds. mlflow does not stream, so it is compared by complete answers; the
time to the first text is that of our streams. Ends with one JSON object: tokens per second on the tiny
trained model with 16 clients, fp32 against mlflow.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean

from http_load import Load, closed_loop, open_loop
from serve_targets import PORTS, Subject, limit_of, peak_mib, prepare, services, target_of

from phi3flow.core.service_stack import Stack

JUDGED = 16  # clients
LIMITED = ("fp32", "int4")  # the engines measured without HTTP too
OPEN_SHARE = 0.7
ASKED = [
    ("mlflow", "whole"),
    *((name, how) for name in PORTS if name != "mlflow" for how in ("whole", "stream")),
]


class Limit:
    """Runs `engine_limit.py` on one exported model."""

    def __init__(self, subject: Subject, name: str) -> None:
        script = Path(__file__).with_name("engine_limit.py")
        command = [sys.executable, str(script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(limit_of(subject, name)))
        assert self._process.stdout.readline() == "ready\n"

    def measure(self, clients: int, seconds: float) -> float:
        self._say(f"{clients} {seconds}")
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)

    def _say(self, line: str) -> None:
        print(line, file=self._process.stdin, flush=True)


def say(name: str, target: str, what: str, figures: object) -> None:
    print(f"{name:5} {target:12} {what:11} {figures}", file=sys.stderr, flush=True)


def measure(subject: Subject, logs: Path, rounds: int, seconds: float, at: list[int]) -> dict:
    closed: dict[str, list[Load]] = {}
    speeds: dict[str, list[float]] = {}
    with Stack(*services(subject, logs)) as stack, ExitStack() as limits:
        alone = {name: limits.enter_context(closing(Limit(subject, name))) for name in LIMITED}
        for name, how in ASKED:
            load(subject, name, how, 2, 1.0)  # warm up
        for clients in [*at] * rounds:
            for name, how in ASKED:
                found = load(subject, name, how, clients, seconds)
                closed.setdefault(f"{name} {how} c{clients}", []).append(found)
            for name, limit in alone.items():
                speed = limit.measure(clients, seconds)
                speeds.setdefault(f"{name} c{clients}", []).append(speed)
                say(subject.name, name, f"alone c{clients}", speed)
        opened = {
            f"{name} {how}": arrivals(subject, name, how, closed[f"{name} {how} c{JUDGED}"], seconds)
            for name, how in ASKED
        }
        peaks = dict(zip(PORTS, map(peak_mib, stack.pids.values()), strict=True))
    return {
        "closed": {what: mean(loads) for what, loads in closed.items()},
        "alone": {what: round(fmean(found), 1) for what, found in speeds.items()},
        "open": opened,
        "peak_mib": peaks,
    }


def load(subject: Subject, name: str, how: str, clients: int, seconds: float) -> Load:
    target = target_of(subject, name, stream=how == "stream")
    found = asyncio.run(closed_loop(target, clients, seconds))
    say(subject.name, name, f"{how} c{clients}", found)
    return found


def arrivals(subject: Subject, name: str, how: str, closed: list[Load], seconds: float) -> dict[str, float]:
    """Arrival times at OPEN_SHARE of the request rate of the closed loop."""
    rate = OPEN_SHARE * fmean(found.requests_per_second for found in closed)
    target = target_of(subject, name, stream=how == "stream")
    found = asyncio.run(open_loop(target, rate, 2 * seconds))._asdict() | {"rate": round(rate, 2)}
    say(subject.name, name, f"{how} open", found)
    return found


def mean(loads: list[Load]) -> dict[str, float]:
    return {
        name: round(fmean(values), 1)
        for name, values in zip(Load._fields, zip(*loads, strict=True), strict=True)
    }


def compared(found: dict, at: list[int]) -> dict:
    """Per number of clients: speed relative to mlflow, and to the engine alone."""
    speed = {what: load["tokens_per_second"] for what, load in found["closed"].items()}
    return {
        "over_mlflow": {
            f"{name} c{c}": round(speed[f"{name} whole c{c}"] / speed[f"mlflow whole c{c}"], 2)
            for name in PORTS
            if name != "mlflow"
            for c in at
        },
        "http_over_engine": {
            f"{name} {how} c{c}": round(speed[f"{name} {how} c{c}"] / found["alone"][f"{name} c{c}"], 3)
            for name in LIMITED
            for how in ("whole", "stream")
            for c in at
        },
    }


def main() -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("runs/demo/tuned"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--subjects", nargs="+", default=["tiny", "large"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, JUDGED, 64])
    args = parser.parse_args()
    work = Path("runs/bench-serve")
    work.mkdir(parents=True, exist_ok=True)
    found = {
        name: measure(prepare(name, work, args.model), work / "logs", args.rounds, args.seconds, args.clients)
        for name in args.subjects
    }
    found = {name: figures | compared(figures, args.clients) for name, figures in found.items()}
    judged = found.get("tiny") or found["large"]
    speed = {name: judged["closed"][f"{name} whole c{JUDGED}"]["tokens_per_second"] for name in PORTS}
    return {
        "bench": "serve",
        "ours": speed["fp32"],
        "baseline": speed["mlflow"],
        "ratio": judged["over_mlflow"][f"fp32 c{JUDGED}"],
        "ratio_int4": judged["over_mlflow"][f"int4 c{JUDGED}"],
        "models": found,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
