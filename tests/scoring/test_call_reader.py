"""Words and calls of an answer, whichever pieces it comes in."""

import json

import pytest

from deploy.scoring.http.call_reader import Arguments, Began, CallReader, Words
from phi3flow.chats.call_form import CallForm

MARKED = CallForm(
    '<tool_call>\n{"name": "',
    '", "arguments": ',
    '}\n</tool_call>\n<tool_call>\n{"name": "',
    "}\n</tool_call>",
)
LISTED = CallForm('<|tool_call|>[{"name": "', '", "arguments": ', '}, {"name": "', "}]<|/tool_call|>")
BARE = CallForm('{"name": "', '", "arguments": ', '}{"name": "', "}")
FORMS = {"marked": MARKED, "listed": LISTED, "bare": BARE}
TRICKY = {"a": '} "\\" ]', "b": {"c": [1, "{"], "<tool_call>": None}, "": "é\n"}


def written(form, *calls):
    told = form.between.join(f"{name}{form.middle}{json.dumps(given)}" for name, given in calls)
    return f"{form.head}{told}{form.tail}"


def read(form, pieces):
    """The words, and each call's name and arguments."""
    reader, words, calls = CallReader(form), "", []
    for part in [*(part for piece in pieces for part in reader.add(piece)), *reader.rest()]:
        match part:
            case Words(text):
                words += text
            case Began(name):
                calls.append([name, ""])
            case Arguments(text):
                calls[-1][1] += text
    return words, calls


def whichever_pieces(form, text):
    found = read(form, [text])
    for size in (1, 2, 3, 7):
        assert read(form, [text[at : at + size] for at in range(0, len(text), size)]) == found
    for at in range(len(text)):
        assert read(form, [text[:at], text[at:]]) == found
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_calls_are_read_whole(form):
    calls = [("price", TRICKY), ("stock", {}), ("price", {"part": 7})]
    words, found = whichever_pieces(form, written(form, *calls))
    assert words == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls


@pytest.mark.parametrize("form", [MARKED, LISTED], ids=["marked", "listed"])
def test_words_may_come_before_a_call(form):
    words, found = whichever_pieces(form, "Let me see < it.\n\n" + written(form, ("price", TRICKY)))
    assert (words, [name for name, _ in found]) == ("Let me see < it.", ["price"])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "text", ["", "Hello.", " Hi \n", "1 < 2 and <tool", 'It is {"name": 1}.', "<|tool_call", '{"nam']
)
def test_words_alone_stay_as_they_are(form, text):
    assert whichever_pieces(form, text) == (text, [])


def test_what_looks_like_a_call_later_is_words_without_a_mark():
    text = "It is " + written(BARE, ("price", {}))
    assert whichever_pieces(BARE, text) == (text, [])


@pytest.mark.parametrize("form", [MARKED, LISTED], ids=["marked", "listed"])
def test_a_cut_answer_has_what_was_there(form):
    text = "Well. " + written(form, ("price", {"part": 7}))
    for end in range(len(text)):
        words, found = whichever_pieces(form, text[:end])
        assert "tool_call>" not in words and "Well.".startswith(words.strip()[:5])
        assert '{"part": 7}'.startswith("".join(arguments for _, arguments in found))


def test_json_that_begins_like_a_bare_call_is_the_answer_itself():
    answer = '{"name": "Ada", "age": 36}'
    assert whichever_pieces(BARE, answer) == (answer, [])
    assert whichever_pieces(BARE, '{"name": "pri') == ("", []), "a call that was cut off is no answer"
