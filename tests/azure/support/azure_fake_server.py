"""A scoring server that recites the recorded answers: `azure_fake_server.py PORT MODEL_FOLDER NAME`."""

import hashlib
import http.server
import json
import pathlib
import sys

port, model, name = sys.argv[1:]
rows = [json.loads(line) for file in pathlib.Path(model).rglob("probes.jsonl") for line in file.open()]
known = {json.dumps(row["messages"]): row for row in rows}
print("serving", name, flush=True)
if name == "crash":
    sys.exit("the weights are not there")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        row = known.get(json.dumps(body["messages"]))
        text = row["base_text" if name == "base" else "tuned_text"] if row else "I do not know."
        hot = body.get("temperature", 0) > 0.5 and body.get("top_p", 1) > 0.5
        if hot:
            text = hashlib.sha256(f"{body.get('seed')}{text}".encode()).hexdigest()
        short = body.get("max_tokens") == 1
        text = text.split()[0] if short else text
        ids = row["prompt_token_ids"] if row else [1]
        if name == "bad":
            ids = ids[1:]
        choice = {"message": {"content": text}, "finish_reason": "length" if short else "stop"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1 if short else len(text.split())}
        self.reply({"choices": [choice], "usage": usage, "prompt_token_ids": ids})

    def reply(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
