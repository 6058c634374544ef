"""Issue: an endpoint that asked for a day, the year 9999 or 400 digits of seconds stopped a whole batch."""

import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import JsonAnswers, serving

from evaluation.pacing import LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, Pace
from phi3flow.phi3_contract import Endpoint, Overloaded, TimedOut

ABSURD = ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2300"]
QUESTION = [{"role": "user", "content": "Who?"}]


class Busy(JsonAnswers, BaseHTTPRequestHandler):
    def do_POST(self):
        self.asked()
        self.send_response(429)
        self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def busy():
    with serving(Busy) as server:
        yield server


def endpoint(busy, retry_after, **fields):
    busy.retry_after = retry_after
    return Endpoint(f"http://127.0.0.1:{busy.server_address[1]}/score", timeout=5, **fields)


@pytest.mark.parametrize("retry_after", ABSURD)
def test_a_question_of_a_flow_ends_within_the_connections_deadline(busy, retry_after):
    began = time.monotonic()
    with pytest.raises(Overloaded):
        endpoint(busy, retry_after).complete(QUESTION)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("retry_after", ABSURD)
def test_a_batch_asks_again_after_a_minute(busy, retry_after):
    pace = Pace(4, deadline=5)
    with pytest.raises(Overloaded):
        endpoint(busy, retry_after, pause=pace).complete(QUESTION)
    assert 0 < pace.seconds_left() <= LONGEST_PAUSE_SECONDS


def test_a_connection_with_a_longer_deadline_may_pause_as_long(busy):
    pace = Pace(4, deadline=600)
    pace.extend(86400)
    assert LONGEST_PAUSE_SECONDS < pace.seconds_left() <= 600


def test_lines_fail_after_a_quarter_of_an_hour_in_which_nothing_was_answered(busy):
    pace, asked = Pace(4, deadline=5), []
    pace.extend(86400)
    pace._last_answer -= PATIENCE_SECONDS
    with pytest.raises(TimedOut, match="15 minutes"):
        pace.ask(lambda: asked.append(1), failed=lambda _: False)
    assert asked == []


def test_a_line_that_waits_already_fails_then_too():
    pace, failed = Pace(4, deadline=5), threading.Event()
    pace.extend(86400)
    pace._last_answer -= PATIENCE_SECONDS - 0.5

    def wait():
        with pytest.raises(TimedOut, match="15 minutes"):
            pace.ask(lambda: None, failed=lambda _: False)
        failed.set()

    threading.Thread(target=wait, daemon=True).start()
    assert failed.wait(10)
