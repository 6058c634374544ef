"""Issue: half a surrogate pair in one answer ended a batch, after everything had been asked."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import JsonAnswers, serving

from evaluation.asking.direct_run import run_direct, streamed_answer
from evaluation.scored_rows import chats_in
from flows.compare.compare_answer import timed_answer
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint, Garbled, Sampling

HALF = "\ud83d"
QUESTION = [{"role": "user", "content": "Who?"}]
SAID = "the answer holds half a surrogate pair"


class Model(JsonAnswers, BaseHTTPRequestHandler):
    """Answers with the server's `pieces` in every contract, and with "fine" to another question."""

    def do_POST(self):
        body = self.asked()
        pieces = self.server.pieces if "Who?" in json.dumps(body) else ["fine"]
        if body.get("stream"):
            events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
            sent = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
            self.send("text/event-stream", sent + b"data: [DONE]\n\n")
        elif "messages" in body:
            choice = {"message": {"content": "".join(pieces)}}
            self.answer(200, {"choices": [choice]})
        else:
            self.answer(200, {"output": "".join(pieces)})


@pytest.fixture
def model():
    with serving(Model) as server:
        yield server


def endpoint(model, contract, *pieces):
    model.pieces = pieces
    return Endpoint(f"http://127.0.0.1:{model.server_address[1]}/score", contract=contract)


@pytest.mark.parametrize("contract", ["B", "openai"])
@pytest.mark.parametrize("pieces", [(HALF,), ("a", HALF, "b"), ("\ude00",), ("a", HALF)])
def test_half_a_character_is_an_error_of_the_endpoint(model, contract, pieces):
    asked = endpoint(model, contract, *pieces)
    with pytest.raises(Garbled, match=SAID):
        asked.complete(QUESTION)
    with pytest.raises(Garbled, match=SAID):
        list(asked.stream(QUESTION))


def test_a_character_that_two_pieces_of_a_stream_share_is_whole(model):
    asked = endpoint(model, "openai", "a\ud83d", "\ude00b", "ü")
    assert list(asked.stream(QUESTION)) == ["a", "😀b", "ü"]
    assert asked.complete(QUESTION) == "a😀bü"


@pytest.mark.parametrize("ask", [timed_answer, streamed_answer])
def test_one_line_of_a_batch_fails_and_the_others_stand(model, tmp_path, ask):
    data = tmp_path / "test.jsonl"
    rows = [[{"role": "user", "content": text}] for text in ("one", "Who?", "two")]
    write_jsonl(data, [{"messages": [*row, {"role": "assistant", "content": "x"}]} for row in rows])
    at = {"base": endpoint(model, "openai", "a", HALF)}
    found = run_direct(chats_in(data), at, ask, tmp_path / "direct", data=data, workers=2)
    assert [record.answer for record in found["base"]] == ["fine", None, "fine"]
    assert found["base"][1].error == SAID


def test_a_flows_node_raises_before_prompt_flow_writes_the_answer(model):
    """What a node returns, `pf run` writes as UTF-8 for all lines at once."""
    said = timed_answer(endpoint(model, "B", HALF), QUESTION, Sampling())
    assert said["text"] is None
    assert said["error"] == SAID
