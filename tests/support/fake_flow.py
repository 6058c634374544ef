"""A real server that speaks the wire format of `pf flow serve`; the question says what is to go wrong.

401, 429, ...   the node raises what the contract module makes of that status at the endpoint
cut             two pieces, then the connection breaks
hold            two pieces, then nothing until `release` is set, then the end
endless         pieces until the reader goes away
busy N          overloaded N times, then an answer
anything else   the pieces in `answers`, or its own words back, one at a time
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NODE_RAISES = {
    "401": "(Unauthorized) the endpoint refused the key",
    "429": "(Overloaded) the endpoint is overloaded",
    "timeout": "(TimedOut) the endpoint did not answer in time",
    "down": "(Unreachable) the endpoint cannot be reached",
    "too long": (
        "(TooLong) the endpoint rejected the request (HTTP 400): "
        "the prompt has 9 tokens, the model's context is 8"
    ),
    "bug": "(KeyError) http://127.0.0.1/?key=sk-planted",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FakeFlow"

    def do_GET(self):
        properties = {"question": {"type": "string"}, "system": {"type": "string"}}
        if self.server.system:
            properties["system"]["default"] = self.server.system
        content = {"application/json": {"schema": {"properties": properties}}}
        told = {"paths": {"/score": {"post": {"requestBody": {"content": content}}}}}
        self._json(200, told if self.path == "/swagger.json" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        question = body["question"]
        try:
            self._answer(body)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.append(question)

    def _answer(self, body):
        question = body["question"]
        if question.startswith("busy "):
            asked = sum(body["question"] == question for body in self.server.bodies)
            if asked <= int(question.split()[1]):
                return self._fail(NODE_RAISES["429"])
        if len(body["chat_history"]) > self.server.most_turns:
            return self._fail(NODE_RAISES["too long"])
        if question in NODE_RAISES:
            return self._fail(NODE_RAISES[question])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(self._pieces(question)):
            self._chunk(f"data: {json.dumps({'answer': piece})}\n\n".encode())
            if question == "cut" and number == 1:
                self.close_connection = True
                return None
            if question == "hold" and number == 1:
                self.server.release.wait(30)
            time.sleep(self.server.seconds_between)
        self.wfile.write(b"0\r\n\r\n")

    def _pieces(self, question):
        if question in self.server.answers:
            return self.server.answers[question]
        if question == "endless":
            return (f"word{number} " for number in range(100_000))
        return [f"{self.server.name} says:", *(f" {word}" for word in question.split()), "."]

    def _fail(self, raised):
        message = f"Execution failure in 'ask': {raised}"
        self._json(400, {"error": {"code": "UserError", "message": message}})

    def _json(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def log_message(self, *args):
        pass


class FakeFlow(ThreadingHTTPServer):
    """What was asked is in `bodies`, which questions' readers went away in `left`."""

    daemon_threads = True

    def __init__(self, name="tuned", port=0, seconds_between=0.0):
        self.name, self.seconds_between = name, seconds_between
        self.bodies, self.left, self.answers = [], [], {}
        self.release = threading.Event()
        self.most_turns = 1_000  # of a conversation, which the model's context holds
        self.system = ""  # the default of its input
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def port(self):
        return self.server_address[1]


@contextmanager
def fake_flow(name="tuned", port=0, seconds_between=0.0) -> Iterator[FakeFlow]:
    with FakeFlow(name, port, seconds_between) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()


if __name__ == "__main__":  # a flow that a test can kill
    FakeFlow(port=int(sys.argv[1]), seconds_between=0.05).serve_forever()
