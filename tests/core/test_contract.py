"""The contract module against a real server that misbehaves in every way an endpoint can."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from phi3flow.phi3_contract import (
    CutOff,
    Endpoint,
    EndpointError,
    Garbled,
    OutOfQuota,
    Overloaded,
    Rejected,
    Sampling,
    TimedOut,
    Unauthorized,
    Unreachable,
    join_turns,
    split_turns,
)

KEY = "sk-planted-secret"
QUESTION = [{"role": "user", "content": "Who?"}]
ANSWERS = {
    "/a": ["Ada."],
    "/b": {"output": "Ada."},
    "/openai": {"choices": [{"message": {"content": "Ada."}}]},
    "/promptflow": {"answer": "Ada."},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, json.loads(body), dict(self.headers)))
        getattr(self, self.path.strip("/").replace("-", "_").split("?")[0], self.contract)()

    def do_GET(self):
        schema = {"properties": {"system": {"type": "string", "default": "Be kind."}}}
        body = {"content": {"application/json": {"schema": schema}}}
        served = {"paths": {"/score": {"post": {"requestBody": body}}}}
        allowed = self.headers["Authorization"] == "Bearer " + KEY
        told = {"/v1/models": {"data": [{"system_prompt": "Be brief."}]} if allowed else {}}
        self.answer(200, (told | {"/swagger.json": served}).get(self.path, {}))

    def contract(self):
        if self.headers["Authorization"] != "Bearer " + KEY:
            return self.answer(401, {"detail": "no"})
        return self.answer(200, ANSWERS[self.path])

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def busy_once(self):
        first = sum(path == "/busy-once" for path, *_ in self.server.seen) == 1
        self.answer(429 if first else 200, {"output": "Ada."}, Retry_After="0.05")

    def busy(self):
        self.answer(429, {}, Retry_After="0.2")

    def spent(self):
        error = {"message": "Pay first.", "code": "insufficient_quota"}
        self.answer(429, {"error": error}, Retry_After="0.1")

    def unpaid(self):
        self.answer(402, {"error": {"message": "Pay first."}})

    def wrapped(self):
        self.answer(424, {}, ms_azureml_model_error_statuscode="400")

    def garbage(self):
        self.answer(200, {"unexpected": True})

    def slow(self):
        time.sleep(2)

    def trickle(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    def sse(self, events, *, complete):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        if complete:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def openai_stream(self):
        pieces = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in ("Ada", " L.")]
        self.sse([*pieces, "[DONE]"], complete=True)

    def openai_cut(self):
        self.sse([json.dumps({"choices": [{"delta": {"content": "Ada"}}]})], complete=True)

    def flow_stream(self):
        self.sse(['{"answer": "Ada"}', '{"answer": " L."}'], complete=True)

    def flow_whole(self):
        assert "application/json" in self.headers["Accept"]
        self.answer(200, {"answer": "Ada L."}, Content_Type="application/json")

    def flow_cut(self):
        self.sse(['{"answer": "Ada"}'], complete=False)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.seen = []
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def endpoint(server, path, contract="B", **kwargs):
    return Endpoint(
        f"http://127.0.0.1:{server.server_port}{path}", KEY, contract, **{"timeout": 1.0, **kwargs}
    )


@pytest.mark.parametrize(
    ("contract", "path", "sent"),
    [
        (
            "A",
            "/a",
            {
                "input_data": ["Who?"],
                "params": {
                    "temperature": 0.5,
                    "max_new_tokens": 9,
                    "do_sample": True,
                    "seed": 3,
                    "return_full_text": False,
                },
            },
        ),
        (
            "B",
            "/b",
            {
                "input_data": {
                    "input_string": QUESTION,
                    "parameters": {"temperature": 0.5, "max_new_tokens": 9, "do_sample": True, "seed": 3},
                }
            },
        ),
        (
            "openai",
            "/openai",
            {
                "model": "phi3",
                "messages": QUESTION,
                "temperature": 0.5,
                "max_tokens": 9,
                "stream": False,
                "seed": 3,
            },
        ),
        (
            "promptflow",
            "/promptflow",
            {"question": "Who?", "chat_history": [], "system": "", "temperature": 0.5, "max_tokens": 9},
        ),
    ],
)
def test_each_contract_sends_its_body_and_reads_its_answer(server, contract, path, sent):
    asked = endpoint(server, path, contract, deployment="green")
    assert asked.complete(QUESTION, Sampling(temperature=0.5, max_tokens=9, seed=3)) == "Ada."
    seen_path, body, headers = server.seen[-1]
    assert (seen_path, body) == (path, sent)
    assert headers["azureml-model-deployment"] == "green"


@pytest.mark.parametrize(("contract", "path"), [("openai", "/openai-stream"), ("promptflow", "/flow-stream")])
def test_streams_arrive_in_pieces(server, contract, path):
    assert list(endpoint(server, path, contract).stream(QUESTION)) == ["Ada", " L."]


def test_a_contract_that_cannot_stream_yields_one_piece(server):
    assert list(endpoint(server, "/b").stream(QUESTION)) == ["Ada."]


@pytest.mark.parametrize(("contract", "path"), [("openai", "/openai-cut"), ("promptflow", "/flow-cut")])
def test_a_broken_stream_is_cut_off_after_its_pieces(server, contract, path):
    stream = endpoint(server, path, contract).stream(QUESTION)
    assert next(stream) == "Ada"
    with pytest.raises(CutOff):
        next(stream)


def test_a_busy_endpoint_is_asked_again_after_the_time_it_names(server):
    assert endpoint(server, "/busy-once").complete(QUESTION) == "Ada."


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/busy", Overloaded),
        ("/wrapped", Rejected),
        ("/garbage", Garbled),
        ("/slow", TimedOut),
        ("/trickle", TimedOut),
    ],
)
def test_each_failure_has_its_own_error_within_the_deadline(server, path, error):
    started = time.monotonic()
    with pytest.raises(error) as caught:
        endpoint(server, path, timeout=0.5).complete(QUESTION)
    assert time.monotonic() - started < 1.5
    assert caught.value.hint


@pytest.mark.parametrize("path", ["/spent", "/unpaid"])
def test_a_spent_quota_is_told_with_its_reason_and_not_asked_again(server, path):
    with pytest.raises(OutOfQuota, match=r"quota is used up: Pay first\.") as caught:
        endpoint(server, path).complete(QUESTION)
    assert [seen for seen, *_ in server.seen].count(path) == 1 and "add credit" in caught.value.hint


def test_a_wrong_key_is_unauthorized_and_never_shown(server):
    wrong = Endpoint(f"http://127.0.0.1:{server.server_port}/b?hidden", "sk-wrong")
    with pytest.raises(Unauthorized) as caught:
        wrong.complete(QUESTION)
    assert "sk-wrong" not in f"{caught.value} {caught.value.hint} {wrong!r}"
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


def test_nobody_there_is_unreachable():
    with pytest.raises(Unreachable):
        Endpoint("http://127.0.0.1:9", KEY).complete(QUESTION)


def test_contract_a_refuses_history_and_unknown_contracts_are_named(server):
    with pytest.raises(Rejected, match="one user turn"):
        endpoint(server, "/a", "A").complete([{"role": "system", "content": "x"}, *QUESTION])
    with pytest.raises(Rejected, match="unknown contract"):
        Endpoint("http://127.0.0.1:1", contract="C")


def test_turns_split_and_join_are_inverse():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "When?"},
    ]
    turns = split_turns(messages)
    assert turns.history == [{"inputs": {"question": "Who?"}, "outputs": {"answer": "Ada."}}]
    assert join_turns(turns.question, turns.history, turns.system) == messages


def test_a_greeting_is_the_answer_to_an_empty_question():
    messages = [{"role": "assistant", "content": "Welcome!"}, {"role": "user", "content": "When?"}]
    for system in ([], [{"role": "system", "content": "Be brief."}]):
        turns = split_turns([*system, *messages])
        assert turns.history == [{"inputs": {"question": ""}, "outputs": {"answer": "Welcome!"}}]
        assert join_turns(turns.question, turns.history, turns.system) == [*system, *messages]


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "x"}], [*QUESTION, *QUESTION]])
def test_turns_that_do_not_alternate_are_rejected(messages):
    with pytest.raises(EndpointError):
        split_turns(messages)


def test_a_connection_may_hold_everything_in_secrets():
    read = Endpoint.from_connection({}, {"endpoint": "http://x/score", "key": KEY, "contract": "A"})
    assert (read.url, read.key, read.contract) == ("http://x/score", KEY, "A")


def test_a_served_flow_that_does_not_stream_answers_in_one_piece(server):
    assert list(endpoint(server, "/flow-whole", "promptflow").stream(QUESTION)) == ["Ada L."]


def test_what_answers_tells_the_system_prompt_of_its_training_data(server):
    assert endpoint(server, "/openai", "openai").system_prompt() == "Be brief."
    assert endpoint(server, "/b").system_prompt() == "Be brief."
    assert endpoint(server, "/score", "promptflow").system_prompt() == "Be kind."
    assert Endpoint(f"http://127.0.0.1:{server.server_port}/b", "another key").system_prompt() == ""
    assert Endpoint("http://127.0.0.1:9/b", KEY).system_prompt() == ""


def test_an_endpoints_system_prompt_opens_the_conversations_that_have_none(server):
    briefly = endpoint(server, "/b", system="Be brief.")
    own = [{"role": "system", "content": "Be long."}, *QUESTION]
    for messages, first in ((QUESTION, "Be brief."), (own, "Be long.")):
        briefly.complete(messages)
        asked = server.seen[-1][1]["input_data"]["input_string"]
        assert (asked[0]["content"], len(asked)) == (first, 2)
