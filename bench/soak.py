"""Mixed load at twice the endpoint's capacity: no answer is lost, mixed up or truncated; memory stays flat.

    make bench-soak [ARGS="--seconds 600 --model DIR"]

Requests arrive at random over every contract, streamed and not; some clients leave mid-answer, some send
nonsense. Each answer is compared with the model's answer to that prompt alone. After the load the endpoint
must answer at once. Then the load returns together with SIGTERM: every complete answer must still be right.
First a few clients ask alone, and again beside others that send what is dear to answer: their 99th percentile
may grow to three times. Ends with one JSON object, and with exit code 1 if any check fails.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from hostile import pester
from http_load import Answer, Load, Request, Target, closed_loop, post

from deploy.export.openvino import export_openvino
from phi3flow.chats.rows import load_chats
from phi3flow.core.child_process import module_command

KEY, PORT = "soak-key", 5081
CHAT = "/v1/chat/completions"
WARM_UP = 0.25  # share of the time; growth after that is a leak
GROWTH_MIB = 24.0
RECOVERY_SECONDS = 5.0
AT_ONCE = 1.0  # seconds
MAX_TOKENS = 64
KINDS = ("A", "B", "openai", "stream", "leaves", "nonsense")
ANSWERED = KINDS[:4]
INNOCENTS, HOSTILE = 4, 4  # clients
BESIDE_SECONDS = 20.0
SLOWER = 3.0  # times the 99th percentile alone


class Soak:
    """The questions, their expected answers, and the counts so far."""

    def __init__(self, questions: list[str]) -> None:
        self.questions = questions
        self.expected: dict[str, str] = {}
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.terminating = False  # after SIGTERM, answers may be refused or cut off

    async def ask(self, number: int) -> Answer | None:
        """One client of a kind that `number` decides; its answer is judged here."""
        question = self.questions[number % len(self.questions)]
        kind = KINDS[number % len(KINDS)]
        if kind == "leaves":
            await self._leave(question)
            return None
        try:
            answer = await post(PORT, KEY, request(kind, question))
        except OSError as error:
            self.seen[f"{kind}: {type(error).__name__}"] += 1
            if not self.terminating:
                self.wrong.append(f"{kind}: no answer: {error!r}")
            return None
        self.seen[f"{kind}: {answer.status}{'' if answer.complete else ' cut'}"] += 1
        if problem := self._problem(kind, question, answer):
            self.wrong.append(f"{kind}: {problem}")
        return answer

    async def _leave(self, question: str) -> None:
        task = asyncio.create_task(post(PORT, KEY, request("stream", question)))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.seen["leaves"] += 1

    def _problem(self, kind: str, question: str, answer: Answer) -> str | None:
        if answer.status == 429:
            error = answer.reply["error"]
            sound = "retry-after: 1\r\n" in answer.head.lower() and error["code"] == "overloaded"
            return None if sound else f"malformed 429: {answer.head} {answer.body!r}"
        if self.terminating and (answer.status == 503 or not answer.complete):
            return None
        if kind == "nonsense":
            return None if answer.status == 400 else f"got {answer.status}"
        if answer.status != 200 or not answer.complete:
            return f"{answer.status}, complete: {answer.complete}: {answer.body!r}"
        right = self.expected[question]
        return None if answer.text == right else f"{question!r} got {answer.text!r}, not {right!r}"


def request(kind: str, question: str) -> Request:
    turns = [{"role": "user", "content": question}]
    match kind:
        case "A":
            return Request("/score", {"input_data": [question], "params": {"max_new_tokens": MAX_TOKENS}})
        case "B":
            inner = {"input_string": turns, "parameters": {"max_new_tokens": MAX_TOKENS}}
            return Request("/score", {"input_data": inner})
        case "nonsense":
            return Request(CHAT, {"messages": turns, "temperature": "hot"})
    return Request(CHAT, {"messages": turns, "max_tokens": MAX_TOKENS, "stream": kind == "stream"})


async def arrivals(
    soak: Soak, rate: float, seconds: float, watch: "Watch | None" = None
) -> list[asyncio.Task]:
    """Those still unanswered when the last one came."""
    draw = random.Random(0)
    began = at = time.monotonic()
    tasks: set[asyncio.Task] = set()
    number = 0
    while at - began < seconds:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        task = asyncio.create_task(soak.ask(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        at += draw.expovariate(rate)
        if watch:
            watch.look()
    return list(tasks)


class Watch:
    """Resident memory of the server and its children, in MiB, every two seconds."""

    def __init__(self, pid: int) -> None:
        self._process, self.samples, self._next = psutil.Process(pid), [], 0.0

    def look(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 2.0
            processes = [self._process, *self._process.children(recursive=True)]
            self.samples.append(sum(p.memory_info().rss for p in processes) / (1 << 20))

    def growth(self) -> float:
        """Growth from the end of the warm-up to the end of the run; each a mean of a tenth of the samples."""
        kept = self.samples[int(WARM_UP * len(self.samples)) :]
        tenth = max(1, len(kept) // 10)
        return sum(kept[-tenth:]) / tenth - sum(kept[:tenth]) / tenth


async def overload(soak: Soak, rate: float, seconds: float, watch: Watch) -> float:
    """Seconds from the last arrival until a new question is answered at once, as an idle endpoint does."""
    unanswered = await arrivals(soak, rate, seconds, watch)
    stopped = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = await soak.ask(KINDS.index("openai"))
        if answer and answer.status == 200 and time.monotonic() - asked < AT_ONCE:
            break
        await asyncio.sleep(0.05)
    await asyncio.gather(*unanswered)
    return asked - stopped


async def terminate(soak: Soak, rate: float, server: subprocess.Popen) -> None:
    """SIGTERM after two seconds of load, which goes on."""
    load = asyncio.create_task(arrivals(soak, rate, 4.0))
    await asyncio.sleep(2.0)
    soak.terminating = True
    server.send_signal(signal.SIGTERM)
    await asyncio.gather(*await load)


def start(model: Path) -> subprocess.Popen:
    command = module_command("phi3flow", "serve", model, "--port", PORT)
    environment = os.environ | {"PHI3FLOW_ENDPOINT_KEY": KEY}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    for line in server.stderr:
        if line.startswith("next: "):
            return server
    raise SystemExit(f"the endpoint did not start: {model}")


async def learn(soak: Soak) -> None:
    """What the model answers to each question alone."""
    for question in soak.questions:
        soak.expected[question] = (await post(PORT, KEY, request("openai", question))).text


async def capacity_of(soak: Soak, clients: int, seconds: float) -> float:
    """Clients of all kinds a second, when so many wait for their answers before the next ones come."""
    began = time.monotonic()
    numbers = iter(range(1 << 30))

    async def client() -> None:
        while time.monotonic() - began < seconds:
            await soak.ask(next(numbers))

    await asyncio.gather(*(client() for _ in range(clients)))
    return next(numbers) / (time.monotonic() - began)


async def beside_hostile(soak: Soak) -> tuple[Load, Load, dict[str, int]]:
    """What a few clients measure alone, what they measure beside hostile ones, and those ones' statuses."""
    target = Target(PORT, KEY, lambda n: request("openai", soak.questions[n % len(soak.questions)]))
    alone = await closed_loop(target, INNOCENTS, BESIDE_SECONDS)
    beside, statuses = await asyncio.gather(
        closed_loop(target, INNOCENTS, BESIDE_SECONDS), pester(PORT, KEY, HOSTILE, BESIDE_SECONDS)
    )
    return alone, beside, statuses


def main() -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("runs/bench-serve/tiny-fp32"))
    parser.add_argument("--data", type=Path, default=Path("runs/demo/data/test.jsonl"))
    parser.add_argument("--seconds", type=float, default=600.0)
    args = parser.parse_args()
    if not args.model.exists():
        args.model.parent.mkdir(parents=True, exist_ok=True)
        export_openvino(Path("runs/demo/tuned"), args.model)
    soak = Soak([chat.prompt[-1]["content"] for chat in load_chats(args.data) if len(chat.prompt) == 1][:300])
    server = start(args.model)
    try:
        asyncio.run(learn(soak))
        alone, beside, statuses = asyncio.run(beside_hostile(soak))
        slower = beside.p99 / alone.p99
        print(f"99th percentile {alone.p99} ms alone, {beside.p99} ms beside hostile ones", file=sys.stderr)
        capacity = asyncio.run(capacity_of(soak, 32, 5.0))
        rate = 2 * capacity
        print(f"capacity {capacity:.0f} a second, {rate:.0f} arrivals a second", file=sys.stderr, flush=True)
        watch = Watch(server.pid)
        recovered = asyncio.run(overload(soak, rate, args.seconds, watch))
        seen = Counter(soak.seen)
        asyncio.run(terminate(soak, rate, server))
        code = server.wait(30)
    finally:
        server.kill()
    growth = watch.growth()
    answered = all(seen[f"{kind}: 200"] for kind in ANSWERED)
    unmoved = slower <= SLOWER and beside.failed == 0 and not any(name.startswith("5") for name in statuses)
    held = not soak.wrong and growth < GROWTH_MIB and recovered < RECOVERY_SECONDS and code == 0 and answered
    for problem in soak.wrong[:20]:
        print(problem, file=sys.stderr)
    return {
        "bench": "soak",
        "ours": len(soak.wrong),
        "baseline": 0,
        "ratio": None,
        "holds": held and unmoved,
        "seconds": args.seconds,
        "capacity_per_second": round(capacity, 1),
        "arrivals_per_second": round(rate, 1),
        "seen": dict(sorted(seen.items())),
        "seen_with_sigterm": dict(sorted((soak.seen - seen).items())),
        "memory_mib": {
            "first": round(watch.samples[0]),
            "last": round(watch.samples[-1]),
            "growth": round(growth, 1),
        },
        "p99_ms": {"alone": alone.p99, "beside hostile": beside.p99, "ratio": round(slower, 2)},
        "requests": {"alone": alone.requests, "beside hostile": beside.requests, "hostile": statuses},
        "recovery_seconds": round(recovered, 2),
        "exit_code": code,
    }


if __name__ == "__main__":
    result = main()
    print(json.dumps(result))
    sys.exit(0 if result["holds"] else 1)
