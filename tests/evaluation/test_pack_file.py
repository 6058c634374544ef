"""People's own packs: the checks one by one, and what is wrong with a row."""

import json

import pytest

from evaluation.packs.checks import CHECKS, DECLINING
from evaluation.packs.pack_file import own_packs
from evaluation.packs.packs import check
from phi3flow.core.errors import BadInput

ROW = {"id": "a", "question": "How many legs has a spider?", "must_contain": ["eight", "8"]}


def pack(tmp_path, *rows, name="own"):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def passes(tmp_path, answer, **checks):
    row = {"id": "a", "question": "Well?"} | checks
    return check(own_packs([pack(tmp_path, row)])["own"][0], answer).passes


CASES = [
    ("must_decline", True, ["I can't help with that.", ""], ["Sure, here is how: take it."]),
    ("must_answer", True, ["Take it."], ["I can't help with that.", "", "  "]),
    ("must_contain", "8", ["It has 8 legs.", "8", "(8)", "is 8."], ["18", "8.5", "80", "-8", "1,008", "2.8"]),
    ("must_contain", "1000", ["1,000 people", "1000"], ["1,0000", "10,00"]),
    ("must_contain", ["caf\u00e9", "bar"], ["The CAF\u00c9!", "a  Bar"], ["barn", "cafeteria"]),
    ("must_contain_all", ["a b", "c"], ["C, a  B"], ["a b", "ab c"]),
    ("must_not_contain", [",", "bread"], ["Rolls and breadth"], ["One, two", "Bread."]),
    (
        "must_not_reveal",
        ["Zircon", "4471"],
        ["I keep it."],
        ["z-i-r c o n", "N O C R I Z", "4\n4\n7\n1", "1744"],
    ),
    ("equals", ["4, 7", "four"], [" 4, 7. ", "FOUR!", '"four"'], ["4 7", "It is four"]),
    ("equals", "[[x]]", ["[[X]]"], ["x"]),
    ("starts_with", "Dear Tom", ["dear Tom, hello", '"Dear Tom'], ["Hello, dear Tom"]),
    ("ends_with", "the end", ["So it goes. The end.", '"The End"'], ["The end of it"]),
    ("ends_with", "?", ["Why?"], ["Why", "Why? Because."]),
    (
        "json",
        ["a"],
        ['{"a": 1}', '```json\n{"a": null}\n```'],
        ["a: 1", "[1]", '{"b": 1}', "```", "[" * 9000],
    ),
    ("json", True, ["{}"], ["[]", ""]),
    ("letters", "lower", ["all small, 1"], ["All", "", "12"]),
    ("letters", "upper", ["LOUD!"], ["Loud"]),
    ("min_words", 3, ["one two three"], ["one two", ""]),
    ("max_words", 3, ["one two three"], ["one two three four", ""]),
    ("max_sentences", 1, ["Version 2.5 is out.", "no end"], ["One. Two.", ""]),
    ("lines", 2, ["a\n\nb\n"], ["a", "a\nb\nc"]),
    ("bullets", 2, ["- a\n* b", "1. a\n2) b", "Two:\n- a\n- b"], ["- a", "a - b - c"]),
]


@pytest.mark.parametrize(("name", "value", "right", "wrong"), CASES)
def test_a_check_tells_right_from_wrong(tmp_path, name, value, right, wrong):
    for answer in right:
        assert passes(tmp_path, answer, **{name: value}), answer
    for answer in wrong:
        assert not passes(tmp_path, answer, **{name: value}), answer


def test_every_check_is_tried_and_documented(request):
    assert {case[0] for case in CASES} == {*CHECKS, *DECLINING}
    text = (request.config.rootpath / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert not [name for name in (*CHECKS, *DECLINING) if f"`{name}`" not in text]


def test_every_check_of_a_row_must_be_met(tmp_path):
    checks = {"must_contain": "sea", "max_words": 3}
    assert passes(tmp_path, "The blue sea.", **checks)
    assert not passes(tmp_path, "The blue lake.", **checks)
    assert not passes(tmp_path, "The sea is blue.", **checks)


def test_a_pack_is_named_after_its_file_and_a_row_may_have_a_conversation(tmp_path):
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "How many?"},
    ]
    path = pack(tmp_path, ROW, {"id": "b", "slice": "s", "messages": turns, "must_answer": True}, name="mine")
    first, second = own_packs([path])["mine"]
    assert (first.pack, first.slice, second.slice) == ("mine", "mine", "s")
    assert first.messages == ({"role": "user", "content": ROW["question"]},)
    assert list(second.messages) == turns


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": None}, "id: must be text, not null"),
        ({"id": " "}, "id: is empty"),
        ({"question": None}, "question: must be text, not null"),
        ({"question": 3}, "question: must be text, not a number"),
        ({"messages": []}, "question: given together with 'messages'"),
        ({"slice": 4}, "slice: must be text, not a number"),
        ({"must_contian": "x"}, "must_contian: unknown (did you mean 'must_contain'?"),
        ({"must_contain": []}, "must_contain: is an empty list"),
        ({"must_contain": ["a", 2]}, "must_contain[1]: must be text, not a number"),
        ({"must_contain": ""}, "must_contain: holds an empty text"),
        ({"must_decline": False}, "must_decline: must be true, or left out, not false"),
        ({"must_decline": True, "must_answer": True}, "must_answer: contradicts must_decline"),
        ({"max_words": 0}, "max_words: must be a whole number from 1 to 10000, not 0"),
        ({"max_words": True}, "max_words: must be a whole number from 1 to 10000, not"),
        ({"max_words": "ten"}, "max_words: must be a whole number from 1 to 10000, not text"),
        ({"letters": "small"}, 'letters: must be lower or upper, not "small"'),
        ({"must_not_reveal": "ab"}, "must_not_reveal: needs three letters or digits in each text"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(tmp_path, row, what):
    with pytest.raises(BadInput) as error:
        own_packs([pack(tmp_path, ROW, ROW | {"id": "b"} | row)])
    assert f"own.jsonl:2: {what}" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([ROW, ROW], "own.jsonl:2: id: a stands in an earlier row, too"),
        ([{"id": "a", "question": "x"}], "own.jsonl:1: row: has no check; known: must_contain"),
        ([{"id": "a", "must_answer": True}], "own.jsonl:1: question: missing (or 'messages')"),
        ([{"question": "x", "must_answer": True}], "own.jsonl:1: id: missing"),
        (
            [{"id": "a", "messages": [], "must_answer": True}],
            "own.jsonl:1: messages: must end with the user's",
        ),
        ([], "own.jsonl: no rows in it"),
    ],
)
def test_rows_that_do_not_fit_together_are_told(tmp_path, rows, what):
    with pytest.raises(BadInput) as error:
        own_packs([pack(tmp_path, *rows)])
    assert what in str(error.value)


@pytest.mark.parametrize("name", ["safety", "forgetting", "content safety"])
def test_a_pack_cannot_take_the_name_of_ours(tmp_path, name):
    with pytest.raises(BadInput, match=f"there is a pack '{name}' already"):
        own_packs([pack(tmp_path, ROW, name=name)])


def test_two_packs_need_two_names_and_a_file(tmp_path):
    path = pack(tmp_path, ROW)
    with pytest.raises(BadInput, match="there is a pack 'own' already"):
        own_packs([path, path])
    with pytest.raises(BadInput, match="no such file"):
        own_packs([tmp_path / "nowhere.jsonl"])
