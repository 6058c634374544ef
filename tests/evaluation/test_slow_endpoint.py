"""Slow is not failed, and dead is told in bounded time: against small real endpoints."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluation.asking.direct_run import run_direct
from evaluation.asking.forecast import say_forecast
from evaluation.asking.measuring import Asking, answer_limit, measure
from evaluation.asking.subset import subset_of
from evaluation.in_flight import in_flight
from evaluation.metrics.likelihood import reference_likelihoods
from evaluation.pacing import STOPPED, pace_of, paced
from evaluation.packs.pack_file import packaged_packs
from evaluation.packs.packs import run_packs
from evaluation.scored_rows import Answer, ScoredRow, chats_in
from flows.compare.compare_answer import timed_answer
from phi3flow.chats.chat import Chat
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.phi3_contract import Endpoint, EndpointError

TOKENS_A_SECOND, TOKENS, AT_ONCE = 20, 5, 2
ASKED_AT_ONCE = 32
TIMEOUT = 1.2  # 32 requests at once take 4 s


class Slow(BaseHTTPRequestHandler):
    """Contract openai: 20 tokens a second for each of two requests at once; others wait for their turn.

    After `server.answers` answers it accepts requests and never answers again.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if body["messages"][-1]["content"] == "too much":
            server.over.wait()
            return
        with server.lock:
            server.asked += 1
            server.waiting += 1
            server.most = max(server.most, server.waiting)
            hangs = server.asked > server.answers
        if hangs:
            server.over.wait()
            return
        tokens = min(TOKENS, body["max_tokens"])
        with server.places:
            time.sleep(tokens / TOKENS_A_SECOND)
        with server.lock:
            server.waiting -= 1
        content = json.dumps(
            {
                "choices": [{"message": {"content": "it is so"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": tokens},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that gave up


@pytest.fixture
def slow() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Slow)
    server.lock, server.places, server.over = (
        threading.Lock(),
        threading.Semaphore(AT_ONCE),
        threading.Event(),
    )
    server.asked, server.waiting, server.most, server.answers = 0, 0, 0, 10**9
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def at(server: Server, timeout: float = TIMEOUT) -> Endpoint:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions"
    return Endpoint(url, "k", "openai", timeout=timeout)


def chats(count: int, reference: str = "It is so.") -> list[Chat]:
    return [
        Chat(({"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": reference}))
        for i in range(count)
    ]


def ask_directly(server, tmp_path, lines, *, workers, timeout=TIMEOUT):
    data = tmp_path / "test.jsonl"
    write_jsonl(data, (chat.row() for chat in chats(lines)))
    endpoints = {"base": at(server, timeout)}
    found = run_direct(
        chats_in(data), endpoints, timed_answer, tmp_path / "direct", data=data, workers=workers
    )
    return list(found["base"])


def test_without_a_pace_most_requests_miss_the_deadline(slow):
    def succeeds(chat):
        try:
            return bool(at(slow).complete(chat.prompt))
        except EndpointError:
            return False

    assert sum(in_flight(succeeds, chats(ASKED_AT_ONCE), ASKED_AT_ONCE)) < ASKED_AT_ONCE / 2


def test_the_direct_runner_asks_as_many_at_once_as_the_endpoint_answers_in_time(slow, tmp_path):
    records = ask_directly(slow, tmp_path, 40, workers=ASKED_AT_ONCE)
    assert [record.error for record in records if record.answer is None] == []
    assert AT_ONCE <= slow.most < ASKED_AT_ONCE / 2


@pytest.mark.slow
def test_the_packs_ask_at_that_pace_too(slow):
    endpoint = paced(at(slow, timeout=2.0), ASKED_AT_ONCE)
    packs = {name: rows[:60] for name, rows in packaged_packs().items()}
    found = run_packs(packs, endpoint, endpoint, workers=ASKED_AT_ONCE)
    assert {name: pack.failed for name, pack in found.items()} == {"safety": 0, "forgetting": 0}


def test_an_endpoint_that_stops_answering_ends_the_run_in_bounded_time(slow, tmp_path):
    slow.answers, began = 6, time.monotonic()
    records = ask_directly(slow, tmp_path, 200, workers=4, timeout=0.6)
    assert time.monotonic() - began < 10  # one after the other, 200 lines would take two minutes
    errors = [record.error for record in records if record.answer is None]
    assert len(errors) >= 194  # a busy machine can miss the deadline of one of the six, too
    assert errors.count(STOPPED) > 180


def test_one_question_that_is_never_answered_fails_alone(slow, tmp_path):
    data = tmp_path / "test.jsonl"
    hard = Chat(({"role": "user", "content": "too much"}, {"role": "assistant", "content": "?"}))
    write_jsonl(data, (chat.row() for chat in [*chats(3), hard, *chats(6)]))
    endpoints = {"base": at(slow, 0.6)}
    found = run_direct(chats_in(data), endpoints, timed_answer, tmp_path / "direct", data=data, workers=1)
    assert [record.answer is None for record in found["base"]] == [i == 3 for i in range(10)]


def test_likelihoods_of_an_endpoint_that_stops_end_as_well(slow):
    slow.answers = 0
    prompt = [{"role": "user", "content": "?"}]
    row = Answer("so", None)
    rows = [ScoredRow(i, None, None, prompt, "It is so.", row, row) for i in range(1, 100)]
    began = time.monotonic()
    measured = reference_likelihoods(rows, at(slow, 0.5), at(slow, 0.5), workers=4)
    assert time.monotonic() - began < 5
    assert "did not answer in time" in measured.unavailable["log_likelihood"]


def test_the_deadline_and_the_workers_come_from_the_measured_rate(slow):
    asking = measure(chats(40), {"base": at(slow), "tuned": at(slow)}, most=64)
    for endpoint in asking.endpoints.values():
        assert 0.8 * 8 * 256 / TOKENS_A_SECOND < endpoint.timeout < 3 * 8 * 256 / TOKENS_A_SECOND
        assert pace_of(endpoint).deadline == endpoint.timeout
    assert asking.max_tokens == 64
    ideal = 2 * TOKENS / TOKENS_A_SECOND / AT_ONCE
    assert ideal <= asking.line_seconds < 5 * ideal  # five on a busy machine
    assert asking.workers == pytest.approx(
        16, abs=4
    )  # a quarter of the deadline, 40 tokens a second, 64 each
    assert all(endpoint.pause is None for endpoint in asking.stored().values())


def test_a_fast_endpoints_deadline_is_the_connections(slow):
    asking = measure(chats(40), {"base": at(slow, timeout=300)}, most=16)
    assert asking.endpoints["base"].timeout == 300
    assert asking.workers == 16


def test_an_endpoint_that_hangs_is_measured_in_bounded_time(slow):
    slow.answers, began = 0, time.monotonic()
    asking = measure(chats(40), {"base": at(slow, 0.5)}, most=16)
    assert time.monotonic() - began < 3
    assert asking.line_seconds is None
    assert asking.endpoints["base"].timeout == 0.5


@pytest.mark.parametrize(
    ("reference", "tokens"), [("short", 64), ("x" * 300, 160), ("é" * 100, 112), ("x" * 9999, 1024)]
)
def test_the_limit_of_an_answer_follows_the_longest_reference(reference, tokens):
    assert answer_limit([*chats(3), *chats(1, reference)]) == tokens


def test_a_long_run_says_what_a_subset_would_cost(capsys):
    asking = Asking({}, 96, 16, 2, line_seconds=3.0)
    say_forecast("comparing", 1000, asking, margin=0.0)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "comparing on 1000 lines: about 50 min; at most 96 tokens an answer"
    # 1.96 * sqrt(.5 / 100) = 13.9 points, of 1000 rows 4.4
    assert said[1] == (
        "with --rows 100 about 5 min, but then tuned must be about 14 points better to be promoted, "
        "instead of 4 (if the models differ on half of the lines)"
    )
    say_forecast("comparing", 10, asking, others=20, margin=0.0)
    assert capsys.readouterr().err == (
        "comparing on 10 lines and 20 questions of the packs: about 90 s; at most 96 tokens an answer\n"
    )


def test_a_subset_lies_at_equal_distances_and_is_stated(tmp_path):
    data = tmp_path / "test.jsonl"
    write_jsonl(data, (chat.row() for chat in chats(10)))
    subset = subset_of(data, tmp_path / "out", 3)
    assert [row["messages"][0]["content"] for row in read_jsonl(subset.path)] == ["0?", "3?", "6?"]
    assert subset.lineage["lines asked"] == "3 of 10, at equal distances"
    assert subset_of(data, tmp_path / "out", 10).path == data
    with pytest.raises(BadInput, match="--rows"):
        subset_of(data, tmp_path / "out", 0)
