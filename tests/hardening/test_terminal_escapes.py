"""Names of fields, slices and files steer no terminal: what commands print shows their control characters."""

import json

import pytest

from phi3flow.app.cli import main
from phi3flow.core.console import CONTROLS

STEERING = "a\x1b[2J\x1b]0;title\x07\u202ed"


@pytest.fixture
def rows():
    return [
        {"question": f"What is number {i}?", "answer": "One.", "slice": STEERING, f"more {STEERING}": "x"}
        for i in range(100)
    ]


def printed(capsys):
    told = capsys.readouterr()
    return told.out + told.err


def test_what_is_said_of_a_file(tmp_path, capsys, rows):
    source = tmp_path / f"{STEERING}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    text = printed(capsys)
    assert "fields not used: more a␛[2J" in text and "too few to tell: a␛[2J" in text
    assert not CONTROLS.search(text)


def test_errors(tmp_path, capsys):
    source = tmp_path / "chats.csv"
    source.write_bytes(f"question,answer,{STEERING}\nHi?,Hello.,".encode() + b"\xff\n")
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 2
    text = printed(capsys)
    assert "a␛[2J␛]0;title␇[U+202E]d: not UTF-8" in text
    assert not CONTROLS.search(text)


def test_the_reason_of_a_failed_answer(tmp_path, capsys):
    judgments = tmp_path / "judgments.jsonl"
    row = {"id": "1", "preference": None, "error": STEERING}
    judgments.write_text(json.dumps(row) + "\n")
    assert main(["verdict", str(judgments)]) == 4
    assert not CONTROLS.search(printed(capsys))
