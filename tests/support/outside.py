"""A proxy that nobody may use: whatever would have left the machine is written down instead."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What MLflow takes for a test or CI, where it would send nothing anyway.
WATCHED = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "BUILDKITE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
LOOPBACK = "127.0.0.1,localhost"


@contextmanager
def nobody_leaves() -> Iterator[dict[str, str]]:
    """What child processes need in their environment. Raises AssertionError if one asked another machine."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode(errors="replace"))

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{proxy.server_port}"
    try:
        yield {"NO_PROXY": LOOPBACK, "no_proxy": LOOPBACK} | dict.fromkeys(PROXIES, url)
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert asked == []


def unwatched() -> dict[str, str]:
    """This environment as a user has it: nothing in it tells a library of a test."""
    return {name: value for name, value in os.environ.items() if name not in WATCHED}
