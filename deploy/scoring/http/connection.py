"""Limits on HTTP connections, which uvicorn does not have.

a request's head arrives slowly     408 after `head_seconds`, and the connection is closed
too many connections                429 before a byte is read, as for a full queue
a client that stops reading         cut when its answer is given up
"""

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

DESCRIPTORS_KEPT = 64  # for files, the engine and the loop itself
SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_ERROR = (
    b'{"error":{"message":"too many connections","type":"invalid_request_error",'
    b'"param":null,"code":"overloaded"}}'
)
FULL = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ERROR), _ERROR)
)


class BoundedConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 with a clock that runs while no request is being answered.

    `head_seconds` are the most for a request's head, `at_once` the most connections in total.
    """

    head_seconds = 10.0
    at_once = 2048
    _check: asyncio.TimerHandle | None = None

    @classmethod
    def allowed(cls) -> int:
        """`at_once`, or fewer if this process may have fewer file descriptors."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(cls.at_once, soft - DESCRIPTORS_KEPT))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.allowed():
            self._refuse(FULL)
            return
        self._waiting_since = self.loop.time()
        self._check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check:
            self._check.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def _check_later(self) -> None:
        self._check = self.loop.call_later(self.head_seconds / 4, self._look)

    def _look(self) -> None:
        """Cut a closed connection whose last bytes the client does not read; refuse a head that is late."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.transport.is_closing():
            self.transport.abort()
        elif not answering and self.loop.time() - self._waiting_since > self.head_seconds:
            self._refuse(SLOW)
        else:
            self._check_later()

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()
