"""The WSGI server of a flow's host: waitress, bounded, with an answer in one packet.

Threads stay, with their connections to the endpoint: a new one for each request costs milliseconds.
"""

from typing import Any

import waitress
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

MOST_REQUESTS = 64  # at once; a further one waits
MOST_CONNECTIONS, SILENT_SECONDS = 500, 20  # nobody keeps others out for long by connections that say nothing
MOST_BYTES = 16 << 20  # of a body, which is received before its key is looked at


class _Headed:
    """A channel that sends the head of an answer with what is written first."""

    def __init__(self, channel: HTTPChannel, head: bytes) -> None:
        self._channel, self._head = channel, head

    def write_soon(self, data: bytes) -> int:
        return int(self._channel.write_soon(self._head + data))


class _Task(WSGITask):
    """waitress sends head and body apart, and each of them wakes the client."""

    channel: Any
    wrote_header: bool

    def write(self, data: bytes) -> None:
        if self.wrote_header or not (data and self.complete and self.has_body):
            super().write(data)
            return
        channel, self.channel = self.channel, _Headed(self.channel, self.build_response_header())
        self.wrote_header = True
        try:
            super().write(data)
        finally:
            self.channel = channel


class _Channel(HTTPChannel):
    task_class = _Task


def serve(app: Flask, address: str, port: int) -> None:
    """Serve until the process is stopped."""
    server: Any = waitress.create_server(
        app,
        host=address,
        port=port,
        threads=MOST_REQUESTS,
        connection_limit=MOST_CONNECTIONS,
        channel_timeout=SILENT_SECONDS,
        cleanup_interval=SILENT_SECONDS // 4,
        max_request_body_size=MOST_BYTES,
        ident=None,
        asyncore_use_poll=True,
    )
    server.channel_class = _Channel
    server.run()
