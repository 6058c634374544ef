"""Answers with a thumb, and preferences as two of them."""

import pytest
from read_lines import BAD, GOOD, SYSTEM, USER, read_lines

from phi3flow.chats.preferences import NO_PREFERENCE
from phi3flow.chats.ratings import read_ratings


def read(path, *rows):
    return read_lines(path, read_ratings, rows)


@pytest.mark.parametrize(
    ("row", "prompt", "rated"),
    [
        ({"prompt": "Hi?", "completion": "Hello.", "label": True}, [USER], [(GOOD, True)]),
        ({"prompt": [SYSTEM, USER], "completion": [GOOD], "label": 0}, [SYSTEM, USER], [(GOOD, False)]),
        ({"question": "Hi?", "answer": "What.", "label": "false"}, [USER], [(BAD, False)]),
        ({"messages": [SYSTEM, USER, GOOD], "label": True}, [SYSTEM, USER], [(GOOD, True)]),
        ({"prompt": "Hi?", "chosen": "Hello.", "rejected": "What."}, [USER], [(GOOD, True), (BAD, False)]),
    ],
)
def test_each_shape_is_read(row, prompt, rated, tmp_path):
    found, intake = read(tmp_path / "a.jsonl", row)
    assert [list(one.prompt) for one in found] == [prompt] * len(rated)
    assert [(one.answer, one.is_good) for one in found] == rated
    assert {one.origin for one in found} == {f"{tmp_path / 'a.jsonl'}:1"}
    assert not intake.bad.total


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "Hi?", "completion": "Hello."}, "label: missing"),
        ({"prompt": "Hi?", "completion": "Hello.", "label": "maybe"}, "label: must be true or false"),
        ({"completion": "Hello.", "label": True}, "completion: answers no question"),
        ({"prompt": "Hi?", "completion": "", "label": True}, "completion: "),
    ],
)
def test_what_is_no_rating_is_named(row, error, tmp_path):
    found, intake = read(tmp_path / "a.jsonl", row)
    assert not found
    assert f"{tmp_path / 'a.jsonl'}:1: {error}" in intake.bad.report()


def test_a_tie_is_counted(tmp_path):
    tie = {"prompt": "Hi?", "chosen": None, "rejected": None, "vote": "tie"}
    assert not read(tmp_path / "a.jsonl", tie)[0]
    assert read(tmp_path / "a.jsonl", tie)[1].notes[NO_PREFERENCE] == 1
