"""Answers that run on their own, against a real server that speaks the wire format of `pf flow serve`."""

import sqlite3

import pytest
from fake_flow import fake_flow
from waiting import until

from phi3flow.phi3_contract import Endpoint, FlowFailed, Sampling, Unauthorized
from ui.answers import running_answer
from ui.answers.problems import explained
from ui.answers.running_answer import RunningAnswer
from ui.answers.streams import Streams
from ui.store import database
from ui.store.conversations import Conversations
from ui.store.records import COMPLETE, CUT, FAILED, RUNNING, STOPPED, Model


@pytest.fixture
def flow():
    with fake_flow() as server:
        yield server


@pytest.fixture
def store(tmp_path):
    made = Conversations(tmp_path / "chat.sqlite")
    made.prepare()
    return made


@pytest.fixture
def ask(flow, store, tmp_path):
    """Start an answer; returns the running one and how to read what the file says of it."""
    chat = store.create("q", "", Sampling())
    running = Streams()

    def start(question, already=""):
        endpoint = Endpoint(f"http://127.0.0.1:{flow.port}/score", contract="promptflow", timeout=20)
        turn = store.add(chat.id, question, Model("tuned"))
        answer = RunningAnswer(
            turn.id,
            lambda: endpoint.stream([{"role": "user", "content": question}]),
            lambda error: explained(error, "tuned", tmp_path),
            store,
            already,
        )
        running.start(answer)
        return answer, lambda: store.turn(turn.id)

    start.running = running
    return start


def ended(answer, saved):
    """What the file says of the answer at its end, which is what the page showed last."""
    until(lambda: not answer.progress().running)
    assert saved().answer == answer.progress().text
    return saved()


def test_an_answer_grows_and_is_saved_when_it_ends(ask, flow):
    answer, saved = ask("hold")
    until(lambda: answer.progress().text == "tuned says: hold")
    assert saved().status == RUNNING and ask.running.get(saved().id) is answer
    flow.release.set()
    assert ended(answer, saved).status == COMPLETE
    turn = saved()
    assert (turn.answer, turn.status, turn.error) == ("tuned says: hold.", COMPLETE, "")
    assert 0 < turn.first_token_seconds <= turn.seconds
    until(lambda: ask.running.get(turn.id) is None)


def test_a_stop_is_seen_at_once_and_hangs_up(ask, flow):
    answer, saved = ask("endless")
    until(lambda: "word3" in answer.progress().text)
    ask.running.stop(saved().id)
    stopped = answer.progress()
    assert not stopped.running and saved().status == STOPPED and saved().answer.startswith("word0 word1")
    until(lambda: flow.left == ["endless"])
    assert saved().answer == stopped.text, "nothing may come after the stop"


def test_a_broken_stream_is_cut_off_and_continued_where_it_parts(ask, flow):
    answer, saved = ask("cut")
    assert ended(answer, saved).status == CUT
    assert (saved().answer, saved().error) == (
        "tuned says: cut",
        "The connection broke before the answer was complete.",
    )
    flow.answers["more"] = ["tuned says:", " cut", " short no more."]
    answer, saved = ask("more", already=saved().answer)
    assert ended(answer, saved).status == COMPLETE and saved().answer == "tuned says: cut short no more."
    answer, saved = ask("more", already="something else entirely")
    assert ended(answer, saved).answer == "tuned says: cut short no more."


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("401", "refused the key"),
        ("timeout", "took too long"),
        ("down", "endpoint does not answer"),
        ("bug", "its logs are in"),
        ("too long", "longer than the model's context"),
    ],
)
def test_a_failure_is_one_sentence_without_secrets(ask, question, words):
    answer, saved = ask(question)
    assert ended(answer, saved).status == FAILED
    assert words in saved().error and "planted" not in saved().error and "http" not in saved().error


def test_an_overloaded_endpoint_is_asked_again_and_the_wait_is_told(ask, flow, monkeypatch):
    monkeypatch.setattr(running_answer, "RETRY_SECONDS", (0.2, 0.2))
    answer, saved = ask("busy 1")
    until(lambda: answer.progress().retry_in is not None)
    assert ended(answer, saved).status == COMPLETE and len(flow.bodies) == 2
    answer, saved = ask("429")
    assert ended(answer, saved).status == FAILED and "overloaded" in saved().error and len(flow.bodies) == 5


def test_15_a_locked_database_or_a_full_disk_costs_no_text(ask, flow, tmp_path, monkeypatch):
    monkeypatch.setattr(running_answer, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    answer, saved = ask("hold")
    until(lambda: answer.progress().text == "tuned says: hold")
    with sqlite3.connect(tmp_path / "chat.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        flow.release.set()
        until(lambda: answer.progress().unsaved == "database is locked")
        assert answer.progress().running and answer.progress().text == "tuned says: hold."
        assert ask.running.get(saved().id) is answer, "the page still finds it"
        other.rollback()
    assert ended(answer, saved).status == COMPLETE and answer.progress().unsaved == ""
    monkeypatch.setattr(running_answer, "SAVE_SECONDS", 0.05)
    answer, saved = ask("endless")
    until(lambda: "word3" in answer.progress().text)
    with sqlite3.connect(tmp_path / "chat.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        ask.running.stop(saved().id)
        assert answer.progress().unsaved == "database is locked"
        stopped = answer.progress().text
        other.rollback()
    assert ended(answer, saved).status == STOPPED and saved().answer == stopped


def test_half_a_character_reaches_the_file_as_a_replacement(ask, flow):
    flow.answers["half"] = ["a\ud83d", "b"]
    answer, saved = ask("half")
    assert ended(answer, saved).status == COMPLETE and saved().answer == "a?b"


def test_the_contract_module_names_what_the_node_met(flow):
    endpoint = Endpoint(f"http://127.0.0.1:{flow.port}/score", contract="promptflow")
    with pytest.raises(FlowFailed) as failed:
        endpoint.complete([{"role": "user", "content": "401"}])
    assert isinstance(failed.value.cause, Unauthorized) and failed.value.hint == Unauthorized.default_hint
