"""A test file of any container, read chat by chat."""

import json

import pytest

from evaluation.scored_rows import chats_in
from phi3flow.core.errors import BadInput

USER, ASSISTANT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}


def test_a_table_is_read_in_any_order(tmp_path):
    rows = "".join(f'"What is\n{i}?",{i}.\n' for i in range(5))
    (tmp_path / "test.csv").write_text("question,answer\n" + rows)
    chats = chats_in(tmp_path / "test.csv")
    assert len(chats) == 5
    assert [chats[i].reference for i in (4, 0, 2)] == ["4.", "0.", "2."]
    assert chats[3].prompt[0]["content"] == "What is\n3?"


def test_an_answer_without_loss_is_asked_without_its_mark(tmp_path):
    turns = [USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT]
    (tmp_path / "test.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    assert chats_in(tmp_path / "test.jsonl")[0].prompt == (USER, ASSISTANT, USER)


def test_tool_turns_are_refused_with_their_line(tmp_path):
    call = {"type": "function", "function": {"name": "price", "arguments": "{}"}}
    called = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "12"}, ASSISTANT]
    rows = [{"messages": [USER, ASSISTANT]}, {"messages": called}]
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=r"test\.jsonl:2: messages: uses tools, which the flows cannot ask"):
        chats_in(file)
