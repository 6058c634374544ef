"""`phi3flow chat` in a terminal, before a served flow: what it shows of an answer, and what it asks with."""

import json

import pytest
from fake_flow import fake_flow

from phi3flow.app.cli import main

STEERING = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31m\u202ed\n\te"


@pytest.fixture
def flow(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with fake_flow() as server:
        monkeypatch.setenv("PHI3FLOW_FLOW_PORT", str(server.port))
        yield server


def test_13_terminal_escapes_in_answers_are_shown_and_not_sent(flow, capsys):
    flow.answers["steer"] = [STEERING[:4], STEERING[4:]]
    assert main(["chat", "steer"]) == 0
    out = capsys.readouterr().out
    assert out == "a␛[2J␛]0;title␇b␍c[U+009B]31m[U+202E]d\n\te\n"
    assert main(["chat", "steer", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == STEERING, "JSON has the answer as it came"


def test_it_asks_under_the_system_prompt_of_the_training_data_and_says_so(flow, capsys):
    flow.system = "You answer\nfor the desk."
    assert main(["chat", "who?"]) == 0
    assert flow.bodies[-1]["system"] == flow.system
    told = capsys.readouterr()
    assert "system prompt of the training data: You answer for the desk.;" in told.err
    assert told.out == "tuned says: who?.\n"
    for given in ("", "Be rude."):
        assert main(["chat", "who?", "--system", given]) == 0
        assert flow.bodies[-1]["system"] == given and "training data" not in capsys.readouterr().err
