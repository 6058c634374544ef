import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evaluation.asking.batch import write_evaluation
from evaluation.asking.direct_run import pause_note, run_direct, streamed_answer
from evaluation.in_flight import in_flight
from evaluation.scored_rows import Answer, GradedRow, Lazy, Record, chats_in, scored_rows
from flows.compare.compare_answer import timed_answer
from phi3flow.core.errors import BadInput
from phi3flow.core.progress import Progress
from phi3flow.phi3_contract import Endpoint, Pause


class Model(BaseHTTPRequestHandler):
    """Contract B: echoes the question, or misbehaves as it asks. Remembers who asked what, and when."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["input_data"]["input_string"][-1]["content"]
        with self.server.lock:
            self.server.asked.append((time.monotonic(), question))
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            first = sum(text == question for _, text in self.server.asked) == 1
        if question == "busy" and first:
            self.reply(429, b"{}", self.server.retry_after)
        elif question == "half":
            self.reply(200, b'{"output": "\\ud83d"}')
        elif question == "refused":
            self.reply(422, b"{}")
        else:
            time.sleep(self.server.seconds)
            self.reply(200, json.dumps({"output": f"echo {question}"}).encode())

    def reply(self, status, body, retry_after=None):
        with self.server.lock:
            self.server.running -= 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def model():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    server.lock, server.asked, server.running, server.most = threading.Lock(), [], 0, 0
    server.seconds, server.retry_after = 0.005, "0.4"
    server.url = f"http://127.0.0.1:{server.server_address[1]}/score"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_chats(path, questions):
    rows = [
        {
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"echo {text}"}],
            "prompt_id": f"p{i}",
            "cluster": "c",
        }
        for i, text in enumerate(questions)
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")  # blank lines are no rows
    return path


def run(data, urls, folder, *, ask=timed_answer, workers=4, timeout=5.0):
    chats = chats_in(data)
    endpoints = {name: Endpoint(url, "key", timeout=timeout) for name, url in urls.items()}
    return chats, run_direct(chats, endpoints, ask, folder, data=data, workers=workers)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_is_answered_or_says_why_not(tmp_path, model):
    questions = ["one", "refused", "line\u2028separator", *map(str, range(20))]
    data = write_chats(tmp_path / "test.jsonl", questions)
    chats, records = run(data, {"base": model.url, "tuned": model.url}, tmp_path / "direct")
    rows = scored_rows(chats, records["base"], records["tuned"])
    assert len(rows) == len(questions)
    for i, (row, question) in enumerate(zip(rows, questions, strict=True)):
        assert (row.line, row.prompt_id, row.cluster) == (i + 1, f"p{i}", "c")
        assert row.messages == ({"role": "user", "content": question},)
        if question == "refused":
            assert row.base is None
            assert row.tuned is None
        else:
            assert row.base.text == row.tuned.text == row.reference == f"echo {question}"
            assert row.base.seconds > 0
    assert records["base"][1] == Record(None, None, "the endpoint rejected the request (HTTP 422)")
    assert sorted(row["line"] for row in lines_of(tmp_path / "direct" / "tuned.jsonl")) == list(range(1, 24))
    assert model.most <= 4


def test_an_answer_that_is_no_text_has_failed(tmp_path, model):
    data = write_chats(tmp_path / "test.jsonl", ["half", "one"])
    _, records = run(data, {"base": model.url}, tmp_path / "direct")
    assert records["base"][0] == Record(None, None, "the answer holds half a surrogate pair")


def test_the_chat_flows_function_gives_the_same_answers(tmp_path, model):
    data = write_chats(tmp_path / "test.jsonl", ["one", "refused"])
    _, records = run(data, {"answers": model.url}, tmp_path / "direct", ask=streamed_answer)
    assert [record.answer for record in records["answers"]] == ["echo one", None]


def test_as_many_requests_are_in_flight_as_asked_for(tmp_path, model):
    model.seconds = 0.1
    data = write_chats(tmp_path / "test.jsonl", map(str, range(24)))
    run(data, {"base": model.url}, tmp_path / "direct", workers=6)
    assert model.most == 6


def test_lines_are_read_when_their_turn_comes():
    drawn, results = [], 0
    for _ in in_flight(lambda item: item, (drawn.append(i) or i for i in range(500)), 3):
        results += 1
        assert len(drawn) <= results + 6
    assert results == 500


def test_a_bug_in_the_work_is_not_a_failed_line():
    with pytest.raises(ZeroDivisionError):
        list(in_flight(lambda item: 1 // item, [1, 1, 0, 1], 2))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_direct_run import run

run(Path(sys.argv[1]), {"base": sys.argv[2], "tuned": sys.argv[2]}, Path(sys.argv[3]))
"""


def test_a_killed_run_continues_without_loss_or_repetition(tmp_path, model):
    model.seconds = 0.02
    data = write_chats(tmp_path / "test.jsonl", map(str, range(150)))
    folder, urls = tmp_path / "direct", {"base": model.url, "tuned": model.url}
    here = str(Path(__file__).parent)
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(data), model.url, str(folder), here])
    while len(model.asked) < 120:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    recorded = {side: len((folder / f"{side}.jsonl").read_text().splitlines()) for side in urls}
    assert 100 <= sum(recorded.values()) < 300
    _, records = run(data, urls, folder)
    for side in urls:
        assert [record.answer for record in records[side]] == [f"echo {i}" for i in range(150)]
        assert sorted(row["line"] for row in lines_of(folder / f"{side}.jsonl")) == list(range(1, 151))
    assert len(model.asked) <= 300 + 4  # what was in flight when it was killed is asked again


def test_torn_and_failed_lines_are_asked_again_and_only_those(tmp_path, model):
    data = write_chats(tmp_path / "test.jsonl", ["one", "two", "three", "four"])
    folder = tmp_path / "direct"
    run(data, {"base": model.url}, folder)
    whole = (folder / "base.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {row["line"]: text for row, text in ((json.loads(text), text) for text in whole)}
    failed = json.dumps({"line": 2, "answer": None, "seconds": None, "error": "down"})
    (folder / "base.jsonl").write_text(f"{kept[1]}\n{failed}\n{kept[4]}\n{kept[3][:25]}", encoding="utf-8")
    model.asked.clear()
    _, records = run(data, {"base": model.url}, folder)
    assert sorted(question for _, question in model.asked) == ["three", "two"]
    assert [record.answer for record in records["base"]] == [
        "echo one",
        "echo two",
        "echo three",
        "echo four",
    ]
    assert len(lines_of(folder / "base.jsonl")) == 4


@pytest.mark.parametrize("timeout", [5.0, 0.2])  # the pause fits into a question's deadline, or does not
def test_nobody_asks_while_the_endpoint_wants_a_pause(tmp_path, model, timeout):
    data = write_chats(tmp_path / "test.jsonl", ["busy", *map(str, range(60))])
    _, records = run(data, {"base": model.url}, tmp_path / "direct", timeout=timeout)
    assert all(record.error is None for record in records["base"])
    times = [at for at, _ in model.asked]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    longest = max(range(len(gaps)), key=gaps.__getitem__)
    assert gaps[longest] > 0.3
    assert len(gaps) - longest > 30  # most lines came after the pause, not only the one that was refused


@pytest.mark.parametrize("asked", ["0", "0.05", "-1", "nan", "soon", "past", "next second", ""])
def test_whatever_a_busy_endpoint_asks_for_the_answer_comes(model, asked):
    seconds = {"past": -3600, "next second": 1}
    model.retry_after = formatdate(time.time() + seconds[asked], usegmt=True) if asked in seconds else asked
    endpoint = Endpoint(model.url, timeout=5, pause=Pause())
    assert endpoint.complete([{"role": "user", "content": "busy"}]) == "echo busy"
    assert len(model.asked) == 2


def test_answers_of_another_run_are_not_mixed_in(tmp_path, model):
    data = write_chats(tmp_path / "test.jsonl", ["one"])
    run(data, {"base": model.url}, tmp_path / "direct")
    with pytest.raises(BadInput, match="other endpoints"):
        run(data, {"base": model.url + "?other"}, tmp_path / "direct")
    write_chats(data, ["two"])
    with pytest.raises(BadInput, match="other data"):
        run(data, {"base": model.url}, tmp_path / "direct")
    assert "key" not in (tmp_path / "direct" / "run.json").read_text()
    assert model.url not in (tmp_path / "direct" / "run.json").read_text()


def test_two_runs_cannot_write_to_one_folder(tmp_path, model):
    model.seconds = 0.5
    data = write_chats(tmp_path / "test.jsonl", ["one"])
    first = threading.Thread(target=run, args=(data, {"base": model.url}, tmp_path / "direct"))
    first.start()
    while not model.asked:
        time.sleep(0.01)
    with pytest.raises(BadInput, match="another run is writing"):
        run(data, {"base": model.url}, tmp_path / "direct")
    first.join()


def test_a_lazy_sequence_is_a_sequence():
    rows = Lazy(4, lambda i: Answer(str(i), None))
    assert [row.text for row in rows] == ["0", "1", "2", "3"]
    assert [row.text for row in rows[1:3]] == ["1", "2"]
    assert rows[-1].text == "3"
    with pytest.raises(IndexError):
        rows[4]


def test_progress_says_count_rate_time_left_and_pauses():
    pause = Pause()
    progress = Progress("answers", 100, 40, partial(pause_note, [pause]))
    assert progress.line().startswith("40 of 100 answers, 0.0 a second, waiting for the first")
    time.sleep(0.05)
    for failed in (False, True, False):
        progress.count(failed=failed)
    assert progress.line().startswith("43 of 100 answers, 1 failed, ")
    assert progress.line().endswith("s left")
    pause.extend(30)
    assert progress.line().endswith("paused for 30 s, as the endpoint asks")


def test_a_file_with_bad_rows_is_refused_before_anything_is_asked(tmp_path, model):
    data = write_chats(tmp_path / "test.jsonl", ["one"])
    with data.open("a", encoding="utf-8") as stream:
        stream.write('\n{"messages": 3}\n')
    with pytest.raises(BadInput, match=r"test\.jsonl:2: messages"):
        run(data, {"base": model.url}, tmp_path / "direct")
    assert model.asked == []
    assert not (tmp_path / "direct").exists()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_evaluation_file_holds_the_summary_and_every_row(tmp_path, count):
    prompt = [{"role": "user", "content": "line\u2028separator"}]
    rows = [GradedRow(i, None, "s", prompt, "é", None, "down", {"exact_match": 0.5}) for i in range(count)]
    summary = {"schema": "x", "metrics": {"lines": 1.0}}
    write_evaluation(tmp_path / "evaluation.json", summary, iter(rows))
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert written == summary | {"rows": [asdict(row) for row in rows]}
