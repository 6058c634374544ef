"""The server: a proxy on 127.0.0.1 that ends TLS itself and plays Azure's hosts. Any other host gets 502.

Clients reach it by HTTPS_PROXY alone, so nothing in the SDKs, nor in the code under test, knows of it.
"""

import contextlib
import re
import ssl
import sys
import time
import traceback
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from azure_emulator.arm.operations import Fate
from azure_emulator.arm.store import now
from azure_emulator.client.client_process import signal_client
from azure_emulator.front.answers import shaped
from azure_emulator.front.faults import Fault
from azure_emulator.front.routing import Found, Plane
from azure_emulator.front.wire import AzureError, Reply, Request, error_body

if TYPE_CHECKING:
    from azure_emulator.emulator import Emulator

IDLE_SECONDS = 120


class HangUp(Exception):
    """The connection ends here, without an answer."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, emulator: "Emulator") -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.emulator = emulator

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a bug of ours."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError | TimeoutError):
            super().handle_error(request, client_address)


class Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # small answers would wait 40 ms for the client's acknowledgement
    server: Server
    host = Plane.CONTROL.value

    def do_CONNECT(self) -> None:
        host = self.path.rsplit(":", 1)[0]
        if Plane.of(host) in {None, Plane.CONTROL}:
            self._log(Request("CONNECT", host, "", "", {}, {}, b""), None, 502, time.monotonic())
            self.send_error(502, "this host is not emulated")
            self.close_connection = True
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        context = self.server.emulator.certificates.context(host)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.host = host
        self.close_connection = False

    def log_message(self, *_: object) -> None:
        """The request log takes this place."""

    def answer(self) -> None:
        started = time.monotonic()
        request = self._read()
        emulator = self.server.emulator
        found = emulator.router.find(request)
        fault = self._due_fault(request, found)
        try:
            self._before(fault)
            reply = self._carry_out(request, found, fault)
            self._log(request, found, reply.status, started, fault)
            self._after(fault)
            self._send(reply)
        except HangUp:
            if fault and fault.when == "before":
                self._log(request, found, 0, started, fault)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.close()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - http.server's names

    def _due_fault(self, request: Request, found: Found | None) -> Fault | None:
        if found is None or found.route.plane is Plane.CONTROL:
            return None
        faults = self.server.emulator.cloud.faults
        return faults.next_for(request.method, request.host, request.path, found.route.template)

    def _before(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault.when == "before":
            self._hang_up_for(fault)

    def _after(self, fault: Fault | None) -> None:
        if fault is not None and fault.when == "after":
            self._hang_up_for(fault)

    def _hang_up_for(self, fault: Fault) -> None:
        if fault.kind == "signal":
            signal_client(self.client_address, self.connection.getsockname(), fault.signal)
        if fault.kind in {"drop", "signal"}:
            raise HangUp

    def _carry_out(self, request: Request, found: Found | None, fault: Fault | None) -> Reply:
        if found is None:
            return Reply(501, error_body("NotEmulated", f"{request.method} {request.host}{request.path}"))
        if fault and fault.kind == "error":
            headers = {"Retry-After": f"{fault.retry_after:g}"} if fault.retry_after else {}
            return Reply(fault.status, error_body(fault.code, fault.message), headers)
        cloud = self.server.emulator.cloud
        try:
            with cloud.store.lock if found.route.serial else contextlib.nullcontext():
                if fault and fault.kind.endswith("_operation"):
                    fails = fault.kind == "fail_operation"
                    cloud.operations.next_fate = Fate(
                        not fails, fault.code if fails else "", fault.message if fails else ""
                    )
                reply = found.route.handler(cloud, found.request)
                version = request.query.get("api-version", "")
                return shaped(reply, self.server.emulator.shapes, version)
        except AzureError as error:
            return error.reply
        except Exception as error:
            traceback.print_exc()
            return Reply(500, error_body("EmulatorBug", type(error).__name__))

    def _read(self) -> Request:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        parts = urllib.parse.urlsplit(self.path)
        host = parts.hostname or self.host
        path = re.sub("/resourcegroups/", "/resourceGroups/", urllib.parse.unquote(parts.path), flags=re.I)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return Request(self.command, host, path, self.path, query, self._headers(), self._body())

    def _headers(self) -> Mapping[str, str]:
        """Found by their names in whatever case."""
        return cast("Mapping[str, str]", self.headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._exactly(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self._exactly(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _exactly(self, size: int) -> bytes:
        """A body that was cut off is no body: nothing of it is carried out."""
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionResetError("the request was cut off")
        return body

    def _send(self, reply: Reply) -> None:
        body = reply.encoded()
        self.send_response(reply.status)
        headers = reply.all_headers()
        bare = self.command == "HEAD" or reply.status in {204, 304}
        if not isinstance(body, bytes):
            headers["Transfer-Encoding"] = "chunked"
        elif not bare or (self.command == "HEAD" and "Content-Length" not in headers):
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(body, bytes):
            self.wfile.write(b"" if bare else body)
        else:
            self._stream(body)

    def _stream(self, chunks: Iterator[bytes]) -> None:
        """Chunk by chunk as they come; an answer that breaks off behind us breaks off here as well."""
        try:
            for chunk in chunks:
                if chunk:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _log(
        self, request: Request, found: Found | None, status: int, started: float, fault: Fault | None = None
    ) -> None:
        if found and found.route.plane is Plane.CONTROL:
            return
        plane = Plane.of(request.host)
        self.server.emulator.cloud.log.add(
            time=now(),
            plane=plane.name.lower() if plane else "other",
            method=request.method,
            host=request.host,
            path=request.path,
            route=found.route.template if found else "",
            api_version=request.query.get("api-version", ""),
            status=status,
            milliseconds=round((time.monotonic() - started) * 1000),
            fault=fault.kind if fault else "",
        )
