"""Preference rows in the shapes that other tools write."""

import pytest
from read_lines import BAD, GOOD, SYSTEM, USER, read_lines

from phi3flow.chats.preferences import NO_PREFERENCE, read_preferences


def read(path, *rows):
    return read_lines(path, read_preferences, rows)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Hi?", "chosen": "Hello.", "rejected": "What."}, [USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, USER]),
        ({"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, [SYSTEM, USER]),
        ({"prompt": "Hi?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER]),
        ({"system": "Be brief.", "question": "Hi?", "chosen": "Hello.", "rejected": "What."}, [SYSTEM, USER]),
        (
            {
                "conversations": [{"from": "human", "value": "Hi?"}],
                "chosen": {"from": "gpt", "value": "Hello."},
                "rejected": {"from": "gpt", "value": "What."},
            },
            [USER],
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
            [USER],
        ),
        ({"prompt": [USER], "chosen": "Hello.<|end|>", "rejected": "What.", "vote": "tuned"}, [USER]),
    ],
)
def test_each_shape_is_read(row, prompt, tmp_path):
    (found,), _ = read(tmp_path / "a.jsonl", row)
    assert list(found.prompt) == prompt
    assert (found.chosen, found.rejected) == (GOOD, BAD)
    assert found.origin == f"{tmp_path / 'a.jsonl'}:1"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "Hi?", "chosen": "Hello."}, "rejected: missing beside chosen"),
        (
            {"prompt": "Hi?", "chosen": "Hello.", "rejected": " Hello. "},
            "rejected: is the same answer as chosen",
        ),
        ({"prompt": "Hi?", "chosen": "", "rejected": "What."}, "chosen: is empty"),
        ({"chosen": "Hello.", "rejected": "What."}, "chosen: answers no question"),
        ({"prompt": "Hi?", "chosen": [USER], "rejected": [BAD]}, "chosen: must be one assistant turn"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "chosen: answers no question"),
        ({"messages": [USER, GOOD]}, "row: is no preference"),
    ],
)
def test_a_wrong_row_is_named(row, error, tmp_path):
    found, intake = read(tmp_path / "a.jsonl", row)
    assert not found
    assert f"{tmp_path / 'a.jsonl'}:1: {error}" in intake.bad.report()


def test_a_tie_is_counted(tmp_path):
    tie = {"id": "1", "prompt": [USER], "chosen": None, "rejected": None, "vote": "tie"}
    better = {
        "id": "2",
        "prompt": [USER],
        "chosen": "Hello.",
        "rejected": "What.",
        "vote": "tuned",
        "score": 5,
    }
    found, intake = read(tmp_path / "a.jsonl", tie, better)
    assert len(found) == 1
    assert intake.notes == {NO_PREFERENCE: 1}
    assert intake.unused == {"id": 1, "score": 1}
