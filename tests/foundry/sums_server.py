"""A scoring server that adds, in every contract: `sums_server.py PORT NAME FAULTS`.

`tuned` knows every sum, `base` every third. While the file FAULTS exists, base refuses sums that end in 0.
"""

import http.server
import json
import pathlib
import re
import sys


def answer(name, question):
    found = re.search(r"(\d+) plus (\d+)", question)
    total = int(found[1]) + int(found[2]) if found else -1
    if total < 0 or (name == "base" and total % 3):
        return "I do not know."
    return f"It is {total}."


def question_of(body):
    """Contract A is one text, B and openai are lists of messages."""
    if "messages" in body:
        return body["messages"][-1]["content"]
    given = body["input_data"]
    return given[0] if isinstance(given, list) else given["input_string"][-1]["content"]


def reply_to(body, text):
    if "messages" in body:
        usage = {"prompt_tokens": 5, "completion_tokens": len(text.split())}
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage}
    return [text] if isinstance(body["input_data"], list) else {"output": text}


def handler_of(name, faults, key=None):
    """`key` None: whoever asks comes through a front end that has looked at it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply(200, {"status": "ok"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = question_of(body)
            text = answer(name, question)
            refused = name == "base" and faults.exists() and re.search(r"0 plus \d*0\b", question)
            if key and self.headers["Authorization"] != f"Bearer {key}":
                self.reply(401, {})
            elif refused:
                self.reply(422, {"error": "refused"})
            elif body.get("stream"):
                self.stream(text)
            else:
                self.reply(200, reply_to(body, text))

        def stream(self, text):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for word in text.split():
                event = {"choices": [{"delta": {"content": f"{word} "}}]}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def reply(self, status, value):
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Handler


if __name__ == "__main__":
    port, name, faults = sys.argv[1:]
    made = handler_of(name, pathlib.Path(faults))
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), made).serve_forever()
