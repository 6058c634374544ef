"""The chat template against the text, and loss that follows the row, on token ids of the Phi-3 tokenizer."""

from pathlib import Path

import pytest

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import TemplateRefused, encode_example, encode_prompt, render
from phi3flow.chats.row_shapes import read_row
from phi3flow.chats.template_check import keep_system, unrendered
from phi3flow.core.errors import BadInput
from training.data.encode import IGNORED, encode_chats
from training.models.loading import load_tokenizer

END, NEWLINE, USER, ASSISTANT = 32007, 13, 32010, 32001
ASKED, WRONG = {"role": "user", "content": "When?"}, {"role": "assistant", "content": "1975."}
AGAIN, RIGHT = {"role": "user", "content": "Be brief."}, {"role": "assistant", "content": "1975."}
SYSTEM = {"role": "system", "content": "Be brief."}
WHEN, BRIEF, YEAR = [10401, 29973], [3629, 11473, 29889], [29896, 29929, 29955, 29945, 29889]
# As Phi-3-medium's: it knows users and assistants, and writes the assistant's header after each user.
DROPS_SYSTEM = """{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>
' + message['content'] + '<|end|>
<|assistant|>
' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + '<|end|>
' }}{% endif %}{% endfor %}"""
TURN = """{{ '<|' + message['role'] + '|>
' + message['content'] }}"""
CLOSED = """{{ '<|end|>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% endif %}"""
ALTERNATES = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}" + TURN + CLOSED
)


@pytest.fixture
def tokenizer():
    return load_tokenizer(str(Path(__file__).parents[1] / "data" / "phi3_tokenizer"))


def counted(example):
    return [token for token, counts in zip(example.input_ids, example.assistant_mask, strict=True) if counts]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"weight": 0.0, "train": False}])
def test_an_excluded_answer_is_context_without_loss_report_3(tokenizer, mark):
    chat = read_row({"messages": [ASKED, WRONG | mark, AGAIN, RIGHT | {"weight": 1}]}).chat
    example = encode_example(tokenizer, chat.messages)
    turn = [USER, NEWLINE, *WHEN, END, NEWLINE, ASSISTANT, NEWLINE, *YEAR, END, NEWLINE]
    prompt = [*turn, USER, NEWLINE, *BRIEF, END, NEWLINE, ASSISTANT, NEWLINE]
    trimmed = [token for token in prompt if token != NEWLINE]
    assert [token for token in example.input_ids if token != NEWLINE] == [*trimmed, *YEAR, END]
    assert counted(example) == [*YEAR, END]
    assert example.assistant_mask == sorted(example.assistant_mask), "only the last turn counts"
    rows = encode_chats(tokenizer, [chat], 64, "refuse").rows
    assert [label for label in rows[0]["labels"] if label != IGNORED] == [*YEAR, END]


def test_both_answers_count_without_marks_and_a_greeting_does_not(tokenizer):
    both = read_row({"messages": [ASKED, WRONG, AGAIN, RIGHT]}).chat
    assert counted(encode_example(tokenizer, both.messages)) == [*YEAR, END] * 2
    greeted = read_row({"messages": [WRONG, ASKED, RIGHT]}).chat
    assert counted(encode_example(tokenizer, greeted.messages)) == [*YEAR, END]


def test_a_dropped_system_message_is_folded_into_the_question_report_5(tokenizer):
    tokenizer.chat_template = DROPS_SYSTEM
    assert "Be brief." not in render(tokenizer, [SYSTEM, ASKED])
    keep_system(tokenizer)
    chat = Chat((SYSTEM, ASKED, RIGHT))
    example = encode_example(tokenizer, chat.messages)
    text = tokenizer.decode(example.input_ids)
    assert text.count("<|user|>") == 1
    assert text.index("Be brief.") < text.index("When?") < text.index("1975.")
    assert counted(example) == [*YEAR, END]
    assert unrendered(tokenizer, chat) is None
    without = tokenizer.decode(encode_prompt(tokenizer, [ASKED]))
    keep_system(tokenizer)
    assert tokenizer.decode(encode_prompt(tokenizer, [ASKED])) == without


def test_a_recipe_may_refuse_what_the_template_drops_and_the_saved_model_keeps_it(tokenizer, tmp_path):
    tokenizer.chat_template = DROPS_SYSTEM
    keep_system(tokenizer, "refuse")
    tokenizer.save_pretrained(tmp_path)
    saved = load_tokenizer(str(tmp_path))
    for each in (tokenizer, saved):
        with pytest.raises(TemplateRefused, match="trained without system messages"):
            encode_prompt(each, [SYSTEM, ASKED])
        assert encode_prompt(each, [ASKED])
    with pytest.raises(BadInput, match=r"mine:2: messages: .* trained without system messages"):
        encode_chats(
            tokenizer, [Chat((ASKED, RIGHT)), Chat((SYSTEM, ASKED, RIGHT), origin="mine:2")], 64, "refuse"
        )
    keep_system(saved, "fold")
    assert "Be brief." in render(saved, [SYSTEM, ASKED])


def test_a_template_that_knows_system_messages_stays_as_it_is(tokenizer):
    before = tokenizer.chat_template
    keep_system(tokenizer, "refuse")
    assert tokenizer.chat_template == before


def test_a_template_that_raises_is_one_sentence_for_each_chat_report_15(tokenizer):
    tokenizer.chat_template = ALTERNATES
    keep_system(tokenizer)
    assert tokenizer.chat_template == ALTERNATES
    with pytest.raises(BadInput) as raised:
        encode_chats(
            tokenizer,
            [Chat((ASKED, RIGHT)), Chat((SYSTEM, ASKED, RIGHT), origin="mine.jsonl:2")],
            64,
            "refuse",
        )
    assert str(raised.value).splitlines() == [
        "1 bad row",
        "mine.jsonl:2: messages: the model's chat template refuses these messages: roles must alternate",
    ]
