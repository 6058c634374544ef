"""A flow behind Prompt flow and behind Agent Framework at once, and what each answers to the same request."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from chromium import free_ports

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from phi3flow.app.flow_hosts import HOSTS
from phi3flow.app.services import served_flow, with_flow_key
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-agents"
needs_agents = pytest.mark.skipif(
    "PHI3FLOW_REQUIRE_AGENTS" not in os.environ,
    reason="each file needs a process of its own, and Agent Framework's environment: make test-agents",
)
TIMES = re.compile(rb'"seconds":[0-9.]+')


class Request(NamedTuple):
    """`body` is sent as it is; `accept` and other headers with it."""

    body: bytes = b""
    method: str = "POST"
    path: str = "/score"
    headers: tuple[tuple[str, str], ...] = ()


class Got(NamedTuple):
    """`ended` is false where the connection broke before the end of the body."""

    status: int
    kind: str
    body: bytes
    ended: bool


class Host(NamedTuple):
    port: int
    key: str

    def get(self, request: Request) -> Got:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with requests.Session() as session:
            session.trust_env = False
            asked = session.request(
                request.method,
                f"http://127.0.0.1:{self.port}{request.path}",
                data=request.body,
                headers=headers | dict(request.headers),
                stream=True,
                timeout=60,
            )
            received, ended = [], True
            try:
                for part in asked.iter_content(1024):
                    received.append(part)
            except requests.RequestException:
                ended = False
            return Got(asked.status_code, asked.headers["Content-Type"], b"".join(received), ended)


def without_times(got: Got) -> Got:
    return got._replace(body=TIMES.sub(b'"seconds":0', got.body))


class Home(NamedTuple):
    """A Prompt flow home, and the variables that select it."""

    folder: Path
    variables: dict[str, str]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process and those that it starts use this home for as long as the block takes."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            yield


def new_home(folder: Path) -> Home:
    prepare_home(folder)
    return Home(folder, environment(folder, new_encryption_key()))


@contextmanager
def both_hosts(flow: Path, home: Home) -> Iterator[dict[str, Host]]:
    """A resolved flow behind each of the two, by name; their logs lie beside the home."""
    ports = dict(zip(HOSTS, free_ports(len(HOSTS)), strict=True))
    settings = {
        name: with_flow_key(
            Settings(
                flow_port=port, flow_host=name, promptflow_home=home.folder, agents_environment=ENVIRONMENT
            )
        )
        for name, port in ports.items()
    }
    with home.entered():
        logs = home.folder.parent / "logs"
        services = [
            served_flow(flow, TUNED, each, logs / f"{name}-{flow.name}.log")
            for name, each in settings.items()
        ]
        with Stack(*services):
            yield {name: Host(ports[name], each.flow_key) for name, each in settings.items()}
