"""HTTP load from one thread: a closed loop and an open loop, with their measurements.

On a small machine the client takes time from the server. So while the clock runs, a connection only looks for
the first text and the end of an answer; everything else is read from the bytes afterwards.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"
FIRST_TEXT = re.compile(rb'"content":"[^"]')
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """The result of one request; times in seconds of `time.monotonic`. `complete`: its end arrived."""

    status: int
    head: str
    body: bytes
    complete: bool
    began: float
    first: float
    ended: float

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        lines = self.body.split(b"\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]

    @cached_property
    def reply(self) -> Any:
        """The JSON of a complete answer, or None."""
        return json.loads(self.body) if self.complete and not self.streamed else None

    @property
    def streamed(self) -> bool:
        return "text/event-stream" in self.head

    @property
    def text(self) -> str:
        if self.streamed:
            pieces = [choice["delta"].get("content") for event in self.events for choice in event["choices"]]
            return "".join(piece or "" for piece in pieces)
        match self.reply:
            case {"choices": [{"message": {"content": str(text)}}]}:
                return text
            case {"output": str(text)} | [str(text)] | {"predictions": [str(text)]}:
                return text
        return self.body.decode(errors="replace")

    @property
    def tokens(self) -> int:
        """Tokens as the server counts them; 0 if it does not."""
        usage = (event.get("usage") for event in (self.events if self.streamed else [self.reply or {}]))
        return next((found["completion_tokens"] for found in usage if found), 0)


class Load(NamedTuple):
    """Measurements of a run. Times in milliseconds; counts the tokens of complete answers only."""

    requests: int
    failed: int
    tokens_per_second: float
    requests_per_second: float
    first_p50: float
    first_p99: float
    p50: float
    p99: float


class Request(NamedTuple):
    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A running server, the questions for it, and how to count an answer's tokens."""

    port: int
    key: str
    asked: Callable[[int], Request]
    tokens: Callable[[Answer], int] = lambda answer: answer.tokens


class Connection(asyncio.Protocol):
    """A persistent connection with one request at a time; reconnects if the server closed it."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head = 0  # its length, once complete
        self._first = 0.0
        self._done: asyncio.Future[bool] | None = None

    async def ask(self, request: Request) -> Answer:
        """Raises OSError where the connection breaks before an answer's head."""
        raw = json.dumps(request.body).encode()
        head = f"POST {request.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {self._key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, LOOPBACK, self._port)
        self._received.clear()
        self._head, self._first, self._done = 0, 0.0, loop.create_future()
        self._transport.write(head.encode() + raw)
        complete = await self._done
        return self._answer(complete, began)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = end + 4
            head = bytes(self._received[: self._head]).lower()
            declared = re.search(rb"\r\ncontent-length: *(\d+)", head)
            self._length = int(declared[1]) if declared else None
        if not self._first and FIRST_TEXT.search(data):
            self._first = time.monotonic()
        if self._is_complete() and self._done and not self._done.done():
            self._done.set_result(True)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._done and not self._done.done():
            if self._head:
                self._done.set_result(False)
            else:
                self._done.set_exception(error or ConnectionResetError())

    def _is_complete(self) -> bool:
        if self._length is None:
            return self._received.endswith(LAST_CHUNK)
        return len(self._received) >= self._head + self._length

    def _answer(self, complete: bool, began: float) -> Answer:
        ended = time.monotonic()
        head, body = (
            bytes(self._received[: self._head]).decode("latin-1"),
            bytes(self._received[self._head :]),
        )
        status = int(head.split(" ", 2)[1])
        body = body if self._length is not None else _joined(body)
        whole = complete and ("text/event-stream" not in head or body.endswith(b"data: [DONE]\n\n"))
        return Answer(status, head, body, whole, began, self._first or ended, ended)


def _joined(chunks: bytes) -> bytes:
    """The body in these chunks (RFC 9112, 7.1), up to the last complete one."""
    body = bytearray()
    at = 0
    while (line := chunks.find(b"\r\n", at)) >= 0 and (size := int(chunks[at:line], 16)):
        body += chunks[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
    return bytes(body)


async def post(port: int, key: str, request: Request) -> Answer:
    """One request on a connection of its own."""
    connection = Connection(port, key)
    try:
        return await connection.ask(request)
    finally:
        connection.close()


async def closed_loop(target: Target, clients: int, seconds: float) -> Load:
    """Each client asks question after question on its connection; after `seconds` nobody begins."""
    began = time.monotonic()
    answers: list[Answer] = []
    numbers = iter(range(1 << 30))

    async def client(connection: Connection) -> None:
        while not answers or time.monotonic() - began < seconds:
            answers.append(await connection.ask(target.asked(next(numbers))))

    with ExitStack() as stack:
        connections = [Connection(target.port, target.key) for _ in range(clients)]
        for connection in connections:
            stack.callback(connection.close)
        await asyncio.gather(*map(client, connections))
    return measured(answers, target)


async def open_loop(target: Target, rate: float, seconds: float, seed: int = 0) -> Load:
    """Arrivals at random (exponential gaps), `rate` a second on average, whatever the server does.

    Connections are kept and used again, as an application's pool does.
    """
    idle: list[Connection] = []

    async def ask(number: int) -> Answer:
        connection = idle.pop() if idle else Connection(target.port, target.key)
        answer = await connection.ask(target.asked(number))
        idle.append(connection)
        return answer

    draw = random.Random(seed)
    began = at = time.monotonic()
    tasks = []
    while at - began < seconds:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.create_task(ask(len(tasks))))
        at += draw.expovariate(rate)
    answers = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return measured(answers, target)


def measured(answers: Sequence[Answer], target: Target) -> Load:
    good = [answer for answer in answers if answer.status == 200 and answer.complete]
    if not good:
        return Load(len(answers), len(answers), *([0.0] * 6))
    took = max(answer.ended for answer in good) - min(answer.began for answer in answers)
    first = sorted(1000 * (answer.first - answer.began) for answer in good)
    whole = sorted(1000 * (answer.ended - answer.began) for answer in good)
    return Load(
        len(answers),
        len(answers) - len(good),
        round(sum(map(target.tokens, good)) / took, 1),
        round(len(good) / took, 2),
        *(round(quantile(values, q), 1) for values in (first, whole) for q in (0.5, 0.99)),
    )


def quantile(values: Sequence[float], q: float) -> float:
    """Quantile of sorted values, by the nearest rank."""
    return values[min(len(values) - 1, int(q * len(values)))]
