"""The chat flow on Prompt flow and on Agent Framework: throughput, added time, and mixed-up answers.

    make bench-hosts [ARGS="--rounds 3 --seconds 10"]

Both hosts serve the same flow over the same endpoint, which takes 200 ms and repeats the question. In each
round the endpoint itself and both hosts are asked in turn: by 64 clients at once, which gives the throughput,
and by one, who reads each answer for a moment, which gives the time that a host adds. Every answer is checked
against its question. Ends with one JSON object: requests per second of Agent Framework against those of
Prompt flow.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from http_load import Answer, Request, post, quantile

from custom_connections.promptflow_home import enter_home
from custom_connections.store import store_connection
from phi3flow.app.flow_hosts import HOSTS
from phi3flow.app.services import served_flow, with_own_keys
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from phi3flow.phi3_contract import Endpoint

ENDPOINT_SECONDS, CLIENTS, ALONE = 0.2, 64, 1
READING = 0.1  # seconds between an answer and the next question of one client alone
LONGEST = 30.0  # seconds for one answer; a host that hangs fails requests, and does not hold up the bench
PORTS = {"promptflow": 18081, "agents": 18082}


class Target(NamedTuple):
    """What is asked; `body` makes a request's body of a question, `text` reads the question back."""

    port: int
    key: str
    body: Callable[[str], Any]
    text: Callable[[Any], str]


class Asked(NamedTuple):
    """`answer` is None where none came: the connection broke, or nothing came in `LONGEST`."""

    question: str
    answer: Answer | None


class Figures(NamedTuple):
    """Of one target in one round; times in milliseconds."""

    requests: int
    failed: int
    mixed: int
    per_second: float
    p50: float
    p99: float


def of_flow(port, key):
    return Target(port, key, lambda question: {"question": question}, lambda reply: reply["answer"])


def of_endpoint(port):
    def body(question):
        return {"input_data": {"input_string": [{"role": "user", "content": question}], "parameters": {}}}

    return Target(port, "none", body, lambda reply: reply["output"])


async def ask(target, question):
    """One question on a connection of its own: both hosts close theirs after each answer."""
    try:
        async with asyncio.timeout(LONGEST):
            answer = await post(target.port, target.key, Request("/score", target.body(question)))
    except (OSError, TimeoutError):
        return Asked(question, None)
    return Asked(question, answer)


async def closed_loop(target, clients, seconds):
    """Each client asks question after question, and begins none after `seconds`."""
    until, pause = time.monotonic() + seconds, READING if clients == ALONE else 0

    async def client(number):
        asked = [await ask(target, f"question 1 of client {number}")]
        while time.monotonic() < until:
            await asyncio.sleep(pause)
            asked.append(await ask(target, f"question {len(asked) + 1} of client {number}"))
        return asked

    return [each for asked in await asyncio.gather(*map(client, range(clients))) for each in asked]


def measure(target, clients, seconds):
    began = time.monotonic()
    asked = asyncio.run(closed_loop(target, clients, seconds))
    took = time.monotonic() - began
    good = [each for each in asked if each.answer and each.answer.status == 200 and each.answer.complete]
    times = sorted(1000 * (each.answer.ended - each.answer.began) for each in good) or [0.0]
    mixed = sum(target.text(each.answer.reply) != each.question for each in good)
    failed = len(asked) - len(good)
    return Figures(len(asked), failed, mixed, len(good) / took, median(times), quantile(times, 0.99))


@contextmanager
def slow_endpoint():
    script = Path(__file__).with_name("slow_endpoint.py")
    command = [sys.executable, str(script), str(ENDPOINT_SECONDS), "echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def targets(folder):
    """The endpoint and the two hosts over it, by name. All run all the time; one is asked at a time."""
    with slow_endpoint() as port:
        settings = with_own_keys(Settings.load(), folder / "home")
        enter_home(settings)
        store_connection(TUNED.connection, Endpoint(f"http://127.0.0.1:{port}/score", "none", "B"))
        flow = resolve_flow("chat", folder / "chat")
        services = [
            served_flow(
                flow,
                TUNED,
                settings.model_copy(update={"flow_host": name, "flow_port": PORTS[name]}),
                folder / f"{name}.log",
            )
            for name in HOSTS
        ]
        with Stack(*services):
            hosts = {name: of_flow(PORTS[name], settings.flow_key) for name in HOSTS}
            yield {"endpoint": of_endpoint(port)} | hosts


def run(rounds, seconds):
    """The figures of every round, by target and number of clients."""
    found: dict[tuple[str, int], list[Figures]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hosts-")))
        asked = stack.enter_context(targets(folder))
        for target in asked.values():
            measure(target, CLIENTS, 1)  # what is loaded with the first requests
        for _ in range(rounds):
            for clients in (CLIENTS, ALONE):
                for name, target in asked.items():
                    figures = measure(target, clients, seconds)
                    found.setdefault((name, clients), []).append(figures)
                    print(f"{name:11}{clients:3} at once  {figures}", file=sys.stderr, flush=True)
    return found


def summary(found):
    def middle(what, name, clients):
        return round(median(getattr(each, what) for each in found[name, clients]), 2)

    def added(name, clients):
        return round(middle("p50", name, clients) - middle("p50", "endpoint", clients), 2)

    ours, baseline = (middle("per_second", name, CLIENTS) for name in ("agents", "promptflow"))
    every = [figures for each in found.values() for figures in each]
    return {
        "bench": "hosts",
        "ours": ours,
        "baseline": baseline,
        "ratio": round(ours / baseline, 3),
        "unit": f"requests per second of {CLIENTS} clients, median of the rounds",
        "endpoint": middle("per_second", "endpoint", CLIENTS),
        "added_p50_ms": {name: added(name, ALONE) for name in HOSTS},
        "added_p50_ms_at_once": {name: added(name, CLIENTS) for name in HOSTS},
        "p99_ms_at_once": {name: middle("p99", name, CLIENTS) for name in HOSTS},
        "requests": sum(each.requests for each in every),
        "mixed": sum(each.mixed for each in every),
        "failed": sum(each.failed for each in every),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    figures = summary(run(arguments.rounds, arguments.seconds))
    print(json.dumps(figures))
    sys.exit(1 if figures["mixed"] or figures["failed"] else 0)


if __name__ == "__main__":
    main()
