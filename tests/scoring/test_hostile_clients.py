"""Clients that hold, flood or starve the endpoint: it keeps its limits and serves the others."""

import asyncio
import json
import resource
import socket
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from tiny import CHAT, KEY, listening
from waiting import until

from deploy.scoring.engine import Generation, Memory
from deploy.scoring.http.auth import KeyFile
from deploy.scoring.http.connection import DESCRIPTORS_KEPT, BoundedConnection
from deploy.scoring.http.dialects import MAX_BODY_BYTES
from deploy.scoring.http.service import Service
from phi3flow.core.errors import BadInput
from training.models.scratch import train_tokenizer

SECONDS = 20
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"


class Impatient(BoundedConnection):
    head_seconds = 0.4


class Few(BoundedConnection):
    at_once = 200


class Echo:
    """An engine that answers one word, or endless words if asked for more than 1000 tokens."""

    context, waiting, full, memory = 100_000, 0, False, Memory(0, 0, 0, 0)

    def __init__(self):
        self.tokenizer = train_tokenizer(["fox dog"] * 3, 300, 1000)
        self.endless = set()

    @property
    def running(self):
        return len(self.endless)

    def submit(self, request):
        generation = Generation(request.fitted(self.context))
        if request.max_tokens > 1000:
            self.endless.add(generation)
            asyncio.get_running_loop().create_task(self._talk(generation))
        else:
            generation.write("fox", 2)
            generation.finish("stop")
        return generation

    async def _talk(self, generation):
        while not generation.over:
            generation.write("fox " * 1000, 1)
            await asyncio.sleep(0.001)
        self.endless.discard(generation)

    def close(self):
        for generation in self.endless:
            generation.cancel()


@contextmanager
def echoing(**limits):
    """An endpoint's address and its engine."""
    service, engine = Service("tiny"), Echo()
    service.ready(engine)
    with listening(service, **limits) as url:
        address = urlsplit(url).hostname, urlsplit(url).port
        until(lambda: ask(address).status_code != 408)  # the process that renders templates is starting
        yield address, engine


@pytest.fixture(scope="module")
def served():
    with echoing() as found:
        yield found


def ask(address, key=KEY, **fields):
    body = {"messages": [{"role": "user", "content": "fox"}], "max_tokens": 5} | fields
    headers = {"Authorization": f"Bearer {key}"}
    host, port = address
    return requests.post(f"http://{host}:{port}{CHAT}", json=body, headers=headers, timeout=SECONDS)


def answers(address):
    return ask(address).json()["choices"][0]["message"]["content"] == "fox"


def raw(address, data):
    stream = socket.create_connection(address, timeout=SECONDS)
    stream.sendall(data if isinstance(data, bytes) else data.encode())
    return stream


def endless(address):
    """The connection of a stream that ends when it is closed."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 5000, "stream": True})
    return raw(address, f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}")


def test_a_head_that_never_ends_is_408_even_when_it_trickles():
    with (
        echoing(connection=Impatient) as (address, _),
        raw(address, HEAD) as slow,
        raw(address, b"") as silent,
    ):
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < SECONDS:
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.02)
        assert b"408" in silent.recv(1000)
        assert silent.recv(1000) == b""
        assert answers(address)


def test_a_kept_connection_gets_no_more_time_for_its_next_head():
    with (
        echoing(connection=Impatient) as (address, _),
        raw(address, "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n") as kept,
    ):
        received = b""
        while b"alive" not in received:
            received += kept.recv(10_000)
        kept.sendall(b"GET /health")
        assert b"408" in kept.recv(10_000)


def test_connections_up_to_the_limit_and_one_more():
    with echoing(connection=Few) as (address, _):
        with ExitStack() as idle:
            for _ in range(199):
                idle.enter_context(raw(address, HEAD))
            assert answers(address)
            idle.enter_context(raw(address, HEAD))
            refused = [idle.enter_context(raw(address, b"")) for _ in range(50)]
            told = [one.recv(1000) for one in refused]
            assert all(b" 429 " in one and b"\r\nretry-after: 1\r\n" in one for one in told)
            assert {json.loads(one.partition(b"\r\n\r\n")[2])["error"]["code"] for one in told} == {
                "overloaded"
            }
            assert all(one.recv(1000) == b"" for one in refused)
        until(lambda: ask(address).status_code == 200)


def test_the_limit_stays_below_the_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        assert BoundedConnection.allowed() == 500 - DESCRIPTORS_KEPT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_half_closed_and_reset_streams_free_their_slots(served):
    address, engine = served
    with ExitStack() as clients:
        half = [clients.enter_context(endless(address)) for _ in range(5)]
        until(lambda: engine.running == 5)
        for client in half:
            client.shutdown(socket.SHUT_WR)
        until(lambda: engine.running == 0)
    assert answers(address)


def test_a_reader_that_stops_reading_is_cut_at_the_deadline_with_bounded_memory():
    with echoing(request_timeout=1.0, connection=Impatient) as (address, engine):
        with endless(address) as deaf:
            until(lambda: engine.running == 1)
            mine = deaf.getsockname()
            assert answers(address)
            until(lambda: engine.running == 0)
            until(lambda: not any(c.raddr == mine for c in _connections()))
        assert answers(address)


def _connections():
    return [c for c in psutil.Process().net_connections() if c.raddr and c.status == "ESTABLISHED"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": ' + b"[" * 200_000,
        b'{"messages": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "' + b"\\u0000" * 1000 + b'"}], "max_tokens": "\xff"}',
        b'{"seed": ' + b"9" * 500_000 + b"}",
        b'{"messages": [' + b'{"role": "user", "content": "x"},' * 30_000 + b"1]}",
    ],
    ids=["deep", "deep-objects", "utf-8", "long-number", "many"],
)
def test_json_that_is_deep_long_or_broken_is_400_and_quick(served, body):
    address, _ = served
    assert len(body) < MAX_BODY_BYTES
    with raw(address, f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body) as stream:
        assert stream.recv(12) == b"HTTP/1.1 400"
    assert answers(address)


def test_many_bodies_at_once_stay_within_their_bounds(served):
    """A hundred clients that each announce a large body: memory grows with what arrives, not with that."""
    address, _ = served
    before = psutil.Process().memory_info().rss
    with ExitStack() as clients:
        for _ in range(100):
            clients.enter_context(
                raw(address, f"{HEAD}Content-Length: {MAX_BODY_BYTES - 1}\r\n\r\n{'x' * 50_000}")
            )
        for _ in range(20):
            huge = clients.enter_context(raw(address, f"{HEAD}Content-Length: {1 << 40}\r\n\r\n"))
            assert huge.recv(12) == b"HTTP/1.1 413"
        assert answers(address)
        assert psutil.Process().memory_info().rss - before < 100 << 20


def test_the_head_is_bounded_too(served):
    address, _ = served
    with raw(address, b"") as stream, pytest.raises(OSError):
        for _ in range(1000):
            stream.sendall(b"x" * 100_000)
    assert answers(address)


def test_keys_rotate_without_a_restart_and_survive_a_broken_file(tmp_path):
    file = tmp_path / "keys"
    with pytest.raises(BadInput):
        KeyFile(file)
    file.write_text("one-key\n")
    with echoing(key=KeyFile(file)) as (address, _):

        def allowed():
            return [key for key in ("one-key", "two-key", "") if ask(address, key).status_code == 200]

        assert allowed() == ["one-key"]
        file.write_text("one-key\ntwo-key\n")
        assert allowed() == ["one-key", "two-key"]
        file.write_text("\n")
        assert allowed() == ["one-key", "two-key"]
        file.write_text("two-key")
        assert allowed() == ["two-key"]
        file.unlink()
        assert allowed() == ["two-key"]


def test_metrics_count_what_happened(served):
    address, engine = served

    def read():
        headers = {"Authorization": f"Bearer {KEY}"}
        text = requests.get(
            f"http://{address[0]}:{address[1]}/metrics", headers=headers, timeout=SECONDS
        ).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    before = read()
    with endless(address):
        until(lambda: engine.running == 1)
        assert read()["phi3flow_requests_running"] == 1
    ask(address)
    ask(address, temperature=-1)
    until(lambda: engine.running == 0)
    after = read()

    def grew(name):
        return after.get(name, 0) - before.get(name, 0)

    assert grew('phi3flow_responses_total{status="400"}') == 1
    assert grew('phi3flow_answers_total{reason="stop"}') == 1
    assert grew("phi3flow_completion_tokens_total") >= 2
    assert grew("phi3flow_time_to_first_token_seconds_count") >= 1
    assert (after["phi3flow_requests_running"], after["phi3flow_requests_waiting"]) == (0, 0)
    assert requests.get(f"http://{address[0]}:{address[1]}/metrics", timeout=SECONDS).status_code == 401


def test_a_path_forges_no_line_of_the_log(served, caplog):
    address, _ = served
    caplog.set_level("INFO", "phi3flow.scoring")
    with raw(address, "GET /a%0Ab%1B[2J HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as stream:
        assert b"404" in stream.recv(1000)
    logged = [record.getMessage() for record in caplog.records]
    assert any(" /a%0Ab%1B[2J 404 " in line for line in logged), logged
