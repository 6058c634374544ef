"""An endpoint that does what the question says: it echoes, refuses, breaks off, or answers with garbage.

Contract openai at /v1/chat/completions, contract B at /score. What was asked is in `bodies`, which questions'
readers left before the end in `left`.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loopback import JsonAnswers

KEY = "planted-key-3f0e9c"
REFUSED = {
    "fail 400": (400, {"error": {"message": "max_tokens is too large", "code": "invalid_value"}}),
    "fail 401": (401, {"error": {"message": "no such key"}}),
    "fail 403": (403, {"detail": "not yours"}),
    "fail 404": (404, {"error": {"message": "the model `phi9` does not exist", "code": "model_not_found"}}),
    "fail 422": (422, {}),
    "fail 429": (429, {"error": {"message": "busy"}}),
    "fail 500": (500, {"error": {"message": "a bug"}}),
    "fail 503": (503, {}),
    "too long": (
        400,
        {"error": {"message": "the prompt exceeds the model's context", "code": "context_length_exceeded"}},
    ),
}


class Scripted(JsonAnswers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ScriptedEndpoint"

    def do_POST(self):
        body = self.asked()
        self.server.bodies.append(body)
        streams = self.path.endswith("/chat/completions")
        messages = body["messages"] if streams else body["input_data"]["input_string"]
        question = messages[-1]["content"]
        time.sleep(self.server.seconds)
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.answer(401, {})
        elif question in REFUSED:
            self.answer(*REFUSED[question])
        elif question == "garbage":
            self.send("text/html", b"<html>")
        elif streams and body["stream"]:
            self._tell(question, answer_to(messages))
        else:
            text = answer_to(messages)
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            self.answer(200, {"choices": [choice]} if streams else {"output": text})

    def _tell(self, question, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._pieces(question, text)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.append(question)

    def _pieces(self, question, text):
        if question == "cut at once":
            return
        words = (f"word{number}" for number in range(3000)) if question == "endless" else text.split(" ")
        for number, word in enumerate(words):
            event = {"choices": [{"delta": {"content": word + " "}}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if question == "cut" and number == 1:
                return
            if question == "garbled" and number == 1:
                self.wfile.write(b"data: {not json\n\n")
            if question == "endless":
                time.sleep(0.01)
        self.wfile.write(b"data: [DONE]\n\n")


def answer_to(messages):
    """All of a prompt, so that two requests that were mixed up answer differently."""
    return " ".join(f"{message['role']}: {message['content']}" for message in messages)


class ScriptedEndpoint(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seconds=0.0):
        self.seconds = seconds  # before each answer
        self.bodies, self.left = [], []
        super().__init__(("127.0.0.1", 0), Scripted)

    def url(self, path="/v1/chat/completions"):
        return f"http://127.0.0.1:{self.server_port}{path}"


@contextmanager
def scripted_endpoint(seconds=0.0) -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(seconds) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
