"""A long talk in the terminal drops its oldest turns, as the page does: public report 9."""

import io

import pytest
from fake_flow import fake_flow

from phi3flow.app import cli

LINE = "Who founded Microsoft? Please tell me in detail, as I asked before."


@pytest.fixture
def flow(monkeypatch):
    with fake_flow() as flow:
        monkeypatch.setenv("PHI3FLOW_FLOW_PORT", str(flow.port))
        monkeypatch.setenv("PHI3FLOW_ENDPOINT_PORT", "9")
        yield flow


def talk(monkeypatch, capsys, lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    code = cli.main(["chat"])
    return code, capsys.readouterr()


def test_9_what_the_endpoint_refuses_as_too_long_is_asked_with_fewer_turns(flow, monkeypatch, capsys):
    flow.most_turns = 3
    code, printed = talk(monkeypatch, capsys, [f"{LINE} {number}" for number in range(6)])
    assert code == 0
    assert printed.out.count("tuned says:") == 6
    answered = [len(body["chat_history"]) for body in flow.bodies if len(body["chat_history"]) <= 3]
    assert answered == [0, 1, 2, 3, 3, 3]
    assert "the first 1 answers and their questions no longer fit" in printed.err


def test_9_the_oldest_turns_are_dropped_before_the_context_is_full(flow, monkeypatch, capsys):
    code, _ = talk(monkeypatch, capsys, [f"{number} {LINE * 20}" for number in range(6)])
    assert code == 0
    assert max(len(body["chat_history"]) for body in flow.bodies) < 5
    assert flow.bodies[-1]["chat_history"][-1]["inputs"]["question"].startswith("4 ")


def test_9_one_question_that_is_too_long_is_told_in_the_endpoints_words(flow, monkeypatch, capsys):
    code, printed = talk(monkeypatch, capsys, ["too long"])
    assert code == 1
    assert "the prompt has 9 tokens, the model's context is 8" in printed.err
    assert "contract" not in printed.err
