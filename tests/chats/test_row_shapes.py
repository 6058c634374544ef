"""What a row means, what is repaired in it, and that no field with meaning is lost in silence."""

import json

import pytest

from phi3flow.chats.intake import Intake
from phi3flow.chats.row_shapes import read_row
from phi3flow.chats.rows import open_chats, read_chats
from phi3flow.core.jsonl import RowError

USER = {"role": "user", "content": "Hi?"}
ASSISTANT = {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be brief."}
AGAIN = [{"role": "user", "content": "And you?"}, {"role": "assistant", "content": "Fine."}]
NO_LOSS = ASSISTANT | {"weight": 0}


def contents(row, columns=None):
    return [turn["content"] for turn in read_row(row, columns).chat.messages]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (
            {"messages": [{"role": "developer", "content": "Be brief."}, USER, ASSISTANT]},
            [SYSTEM, USER, ASSISTANT],
        ),
        (
            {"messages": [{"role": "User", "content": "Hi?"}, {"Role": "GPT", "Content": "Hello."}]},
            [USER, ASSISTANT],
        ),
        (
            {
                "messages": [
                    USER | {"content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "?"}]},
                    ASSISTANT,
                ]
            },
            [USER, ASSISTANT],
        ),
        ({"system": "Be brief.", "messages": [USER, ASSISTANT]}, [SYSTEM, USER, ASSISTANT]),
        (
            {"messages": [USER, ASSISTANT], "weight": 1, "train": True, "label": True, "tools": []},
            [USER, ASSISTANT],
        ),
        ({"data": ["Hi?", "Hello."], "id": 3}, [USER, ASSISTANT]),
        ({"question": "Hi?", "answer": "Hello.", "data": "2024-05-01", "turns": 2}, [USER, ASSISTANT]),
        ({"instruction": "Hi?", "input": None, "output": "Hello.", "history": []}, [USER, ASSISTANT]),
        (
            {"prompt": "And you?", "response": "Fine.", "history": [USER, ASSISTANT]},
            [USER, ASSISTANT, *AGAIN],
        ),
        ({"question": "Hi?", "answers": {"text": ["Hello."], "answer_start": [0]}}, [USER, ASSISTANT]),
        ({"prompt": [SYSTEM, USER], "completion": "Hello."}, [SYSTEM, USER, ASSISTANT]),
        ({"messages": str([USER, ASSISTANT])}, [USER, ASSISTANT]),
        ({"messages": [USER, NO_LOSS, *AGAIN]}, [USER, NO_LOSS, *AGAIN]),
        ({"messages": [USER, ASSISTANT | {"train": False}, *AGAIN]}, [USER, NO_LOSS, *AGAIN]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi?"},
                    {"from": "gpt", "value": "Hello.", "weight": "0"},
                    {"from": "human", "value": "And you?"},
                    {"from": "gpt", "value": "Fine."},
                ]
            },
            [USER, NO_LOSS, *AGAIN],
        ),
    ],
)
def test_what_a_row_means(row, messages):
    read = read_row(row)
    assert list(read.chat.messages) == messages
    assert not read.repairs


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"messages": [USER, ASSISTANT], "history": [["a", "b"]]}, "history: has no place beside messages"),
        ({"messages": [USER, ASSISTANT], "context": "Invoice 7"}, "context: has no place beside messages"),
        ({"messages": [USER, ASSISTANT], "weight": 0}, "weight: excludes the only answer"),
        ({"messages": [USER, ASSISTANT], "train": False}, "train: excludes the only answer"),
        (
            {"messages": [USER, ASSISTANT], "weight": 0.5},
            "weight: is 0.5; only 0 (context without loss) and 1",
        ),
        ({"messages": [USER, ASSISTANT | {"weight": 2}]}, "messages[1].weight: is 2; only 0"),
        ({"messages": [USER, ASSISTANT | {"train": "later"}]}, "messages[1].train: must be 0 or 1, not text"),
        (
            {"messages": [USER, NO_LOSS]},
            "messages: has no answer that counts toward the loss (weight, train)",
        ),
        ({"prompt": "a", "completion": "b", "label": False}, "label: false marks a bad answer"),
        (
            {"question": "a", "answer": "b", "label": "bills"},
            "label: is neither true nor false; to group rows",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chosen: belongs to a preference row"),
        (
            {
                "input": {"messages": [USER]},
                "preferred_output": [ASSISTANT],
                "non_preferred_output": [ASSISTANT],
            },
            "preferred_output: belongs to a preference row",
        ),
        ({"messages": [USER, ASSISTANT], "functions": [{}]}, "functions: is OpenAI's older form of tools"),
        (
            {"messages": [USER, ASSISTANT | {"function_call": {"name": "a"}}]},
            "messages[1].function_call: OpenAI's older",
        ),
        (
            {"messages": [USER, ASSISTANT | {"training_detail": [1]}]},
            "messages[1].training_detail: loss on parts",
        ),
        (
            {"messages": [USER | {"content": [{"type": "image_url"}]}, ASSISTANT]},
            "messages[0].content[0].type: is image_url; a Phi-3 reads only parts of text",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "12"}, ASSISTANT]},
            "messages[1].role: is tool, but no assistant",
        ),
        ({"messages": [USER, ASSISTANT, ASSISTANT | {"weight": 0}]}, "messages[2].weight: differs from that"),
        (
            {"text": "<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>"},
            "text: is a chat that a template has rendered",
        ),
        ({"question": "a", "answers": {"text": []}}, "answers: has no text in it: an unanswerable question"),
        (
            {"question": "a", "answer": "b", "Answer ": "c"},
            "'Answer ': given together with 'answer'; keep one",
        ),
        (
            {"question": "a", "answer": "b", "response": "c"},
            "response: given together with 'answer'; keep one",
        ),
        (
            {"question": "a", "answer": "b", "history": [["a"]]},
            "history[0]: must be a pair of question and answer",
        ),
    ],
)
def test_a_field_with_meaning_is_refused_by_name(row, error):
    with pytest.raises(RowError) as raised:
        read_row(row)
    assert str(raised.value).startswith(error)


def test_columns_choose_between_fields():
    row = {"question": "a", "answer": "b", "response": "c", "context": "d", "chosen": "e", "rejected": "f"}
    read = read_row(row, {"answer": "chosen", "system": "context"})
    assert [turn["content"] for turn in read.chat.messages] == ["d", "a", "e"]
    assert sorted(read.unused) == ["answer", "rejected", "response"]
    assert (
        read_row({"question": "a", "answer": "b", "label": "bills"}, {"slice": "label"}).chat.slice == "bills"
    )


TOOLS = [{"type": "function", "function": {"name": "price", "parameters": {}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": '{"part": 7}'}}


def test_tool_turns_are_kept():
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12"}
    chat = read_row({"messages": [USER, called, result, ASSISTANT], "tools": TOOLS}).chat
    assert chat.tools == tuple(TOOLS)
    kept = {"type": "function", "function": {"name": "price", "arguments": {"part": 7}}, "id": "c1"}
    assert chat.messages[1] == {"role": "assistant", "content": "", "tool_calls": [kept]}
    assert chat.messages[2] == result
    assert read_row(chat.row()).chat == chat
    shared = [
        {"from": "human", "value": "Hi?"},
        {"from": "function_call", "value": '{"name": "price", "arguments": {"part": 7}}'},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "Hello."},
    ]
    turns = read_row({"conversations": shared, "tools": json.dumps(TOOLS)}).chat.messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1]["tool_calls"][0]["function"] == kept["function"]


REPAIRS = {
    "turns of one role joined": ([USER, USER, ASSISTANT], [USER | {"content": "Hi?\n\nHi?"}, ASSISTANT]),
    "first assistant turns kept without loss": ([ASSISTANT, *AGAIN], [NO_LOSS, *AGAIN]),
    "turns after the last answer cut": ([USER, ASSISTANT, USER], [USER, ASSISTANT]),
    "template marks at the end of answers removed": (
        [USER, ASSISTANT | {"content": "Hello.<|end|></s>\n"}],
        [USER, ASSISTANT],
    ),
    "empty system messages removed": ([SYSTEM | {"content": None}, USER, ASSISTANT], [USER, ASSISTANT]),
    "later system messages moved to the front": (
        [USER, ASSISTANT, SYSTEM, *AGAIN],
        [SYSTEM, USER, ASSISTANT, *AGAIN],
    ),
}


def read_file(path, rows, **how):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    intake = Intake(**how)
    chats = [chat for source in open_chats(str(path)) for chat in read_chats(source, intake)]
    return chats, intake


@pytest.mark.parametrize("kind", REPAIRS)
def test_a_repair_is_counted_and_strict_makes_it_an_error(kind, tmp_path):
    turns, repaired = REPAIRS[kind]
    rows = [{"messages": turns}, {"messages": [USER, ASSISTANT]}, {"messages": turns}]
    chats, intake = read_file(tmp_path / "a.jsonl", rows)
    assert [list(chat.messages) for chat in chats] == [repaired, [USER, ASSISTANT], repaired]
    assert intake.told()["repairs"] == {kind: 2}
    again, intake = read_file(tmp_path / "b.jsonl", [chat.row() for chat in chats], strict=True)
    assert again == chats, "what was written needs no repair"
    chats, intake = read_file(tmp_path / "a.jsonl", rows, strict=True)
    assert (len(chats), intake.bad.total) == (1, 2)
    assert "(--strict)" in intake.bad.report()


def test_answers_without_loss_at_the_end_are_cut_and_ids_become_text(tmp_path):
    rows = [{"messages": [USER, ASSISTANT, USER, NO_LOSS], "prompt_id": 7, "slice": 1, "cluster": "c"}]
    (chat,), intake = read_file(tmp_path / "a.jsonl", rows)
    assert list(chat.messages) == [USER, ASSISTANT]
    assert (chat.prompt_id, chat.slice, chat.cluster) == ("7", "1", "c")
    assert set(intake.repairs) == {"turns after the last answer cut", "numbers as ids taken"}


def test_unknown_fields_are_counted_by_name_and_bad_rows_count_nothing(tmp_path):
    named = [USER | {"name": "ann"}, ASSISTANT | {"reasoning_content": "Greet.", "refusal": None}]
    rows = [{"messages": named, "Source": "a"}, {"messages": [USER, ASSISTANT], "source": "b", "empty": ""}]
    _, intake = read_file(tmp_path / "a.jsonl", [*rows, {"messages": [USER], "source": "c"}])
    assert intake.told()["unused_fields"] == {
        "messages[].name": 1,
        "messages[].reasoning_content": 1,
        "Source": 1,
        "source": 1,
    }
    assert (intake.bad.total, intake.repairs.total()) == (1, 0)


def test_marks_inside_texts_are_told(tmp_path):
    rows = [
        {"messages": [USER | {"content": "What does <|end|> do?"}, ASSISTANT]},
        {"messages": [USER, ASSISTANT]},
    ]
    chats, intake = read_file(tmp_path / "a.jsonl", rows)
    assert chats[0].prompt[0]["content"] == "What does <|end|> do?"
    assert intake.told()["notes"] == {"template marks inside texts, kept as plain text": 1}


def test_ultrachats_prompt_is_no_unused_field_unless_it_says_something_else():
    assert read_row({"prompt": " Hi? ", "messages": [USER, ASSISTANT]}).unused == []
    assert read_row({"prompt": "Greet me.", "messages": [USER, ASSISTANT]}).unused == ["prompt"]
