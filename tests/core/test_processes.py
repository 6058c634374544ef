"""Stacks of real servers: ready, dead early, dead late, and gone together however the stack ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from phi3flow.core.errors import BadInput
from phi3flow.core.service_stack import Service, ServiceFailed, Stack, is_free

SERVER = """
import http.server, os, signal, subprocess, sys
port, manner = int(sys.argv[1]), sys.argv[2]
print("reading the weights", os.environ.get("SECRET"), flush=True)
if manner == "broken":
    sys.exit("no such model")
if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if manner == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("out of memory", flush=True)
            os._exit(3)
        self.send_response(503 if manner == "never" else 200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
# What a verb does: hold a stack until something ends it.
HOLDER = """
import json, sys
from pathlib import Path
from phi3flow.core.service_stack import Service, Stack

services = [Service(**{**given, "log": Path(given["log"])}) for given in json.loads(sys.argv[1])]
try:
    with Stack(*services) as stack:
        stack.wait()
except KeyboardInterrupt:
    sys.exit(130)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def service(folder, name, manner="good"):
    port = free_port()
    return Service(
        name=name,
        command=[sys.executable, "-c", SERVER, str(port), manner],
        port=port,
        ready_path="/ready",
        setting=f"{name}_port",
        log=folder / "logs" / f"{name}.log",
        environment={"SECRET": "planted"},
    )


def get(service, path):
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return connection.recv(100)


def grandchild_of(service):
    return int(service.log.read_text().split("child ")[1].split()[0])


def lives(pid):
    """A zombie, which only waits for a parent that may never ask, does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def holder(tmp_path):
    """Another process with a stack of two, ready; the first has a child of its own."""
    services = [service(tmp_path, "endpoint", "parent"), service(tmp_path, "page")]
    given = json.dumps([{**vars(s), "log": str(s.log)} for s in services])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, given], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    ready = [process.stderr.readline() for _ in services]
    assert sorted(line.split(":")[0] for line in ready) == ["endpoint", "page"]
    yield process, services
    process.kill()
    process.communicate()


def test_services_answer_inside_the_block_and_are_gone_after_it(tmp_path):
    services = [service(tmp_path, "endpoint"), service(tmp_path, "page")]
    before = signal.getsignal(signal.SIGTERM)
    with Stack(*services):
        assert all(b" 200 " in get(s, "/") for s in services)
        assert not any(is_free(s.port) for s in services)
    assert all(is_free(s.port) for s in services)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "reading the weights planted" in services[0].log.read_text()
    assert "planted" not in repr(services[0])


def test_an_early_death_shows_the_log_and_stops_the_others(tmp_path):
    good, broken = service(tmp_path, "endpoint"), service(tmp_path, "page", "broken")
    with pytest.raises(ServiceFailed) as raised, Stack(good, broken):
        pass
    assert str(raised.value) == (
        "page stopped with exit code 1\n  | reading the weights planted\n  | no such model"
    )
    assert str(broken.log) in raised.value.hint
    assert is_free(good.port)


def test_waiting_for_readiness_is_bounded_and_a_stubborn_process_is_killed(tmp_path):
    never = service(tmp_path, "endpoint", "never")
    with pytest.raises(ServiceFailed, match="endpoint is not ready after 1 s"), Stack(never, ready_seconds=1):
        pass
    stubborn = service(tmp_path, "page", "stubborn")
    with Stack(stubborn, stop_seconds=0.3):
        pass
    assert is_free(stubborn.port)


def test_taken_ports_are_named_with_the_way_out_and_nothing_is_started(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        good, page = service(tmp_path, "endpoint"), service(tmp_path, "page")
        clash = Service(page.name, [], taken.getsockname()[1], "/", "ui_port", page.log)
        twice = Service("flow", [], good.port, "/", "flow_port", page.log)
        with pytest.raises(BadInput) as raised, Stack(good, clash, twice):
            pass
    first, second = str(raised.value).splitlines()
    assert first.startswith(f"port {clash.port} for page is taken by ")
    assert f"(pid {os.getpid()})" in first
    assert second == f"port {good.port} is set for both endpoint and flow"
    assert "PHI3FLOW_UI_PORT=PORT or ui_port in phi3flow.toml" in raised.value.hint
    assert not good.log.exists()


@pytest.mark.parametrize("leave_by", ["waiting", "failing"])
def test_a_death_later_is_the_error_even_of_a_block_that_fails_because_of_it(tmp_path, leave_by):
    good, doomed = service(tmp_path, "endpoint"), service(tmp_path, "page")
    with (
        pytest.raises(ServiceFailed, match="page stopped with exit code 3") as raised,
        Stack(good, doomed) as stack,
    ):
        get(doomed, "/die")
        if leave_by == "waiting":
            stack.wait()
        until(lambda: is_free(doomed.port))
        raise RuntimeError("no answer")
    assert str(raised.value).endswith("  | out of memory")
    assert str(doomed.log) in raised.value.hint
    assert is_free(good.port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_everything_with_grandchildren_and_without_traceback(holder, number):
    process, services = holder
    grandchild = grandchild_of(services[0])
    process.send_signal(number)
    process.send_signal(number)  # impatience does not leave orphans
    rest = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert rest == ""
    assert all(is_free(s.port) for s in services)
    assert not lives(grandchild)


def test_nothing_survives_a_parent_that_is_killed(holder):
    process, services = holder
    grandchild = grandchild_of(services[0])
    process.kill()
    until(lambda: all(is_free(s.port) for s in services) and not lives(grandchild))
