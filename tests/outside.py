"""A proxy that nobody may use: whatever would have left the machine is written down instead."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
LOOPBACK = "127.0.0.1,localhost"


@contextmanager
def nobody_leaves() -> Iterator[dict[str, str]]:
    """The environment for child processes. Raises AssertionError at the end if one asked another machine."""
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
