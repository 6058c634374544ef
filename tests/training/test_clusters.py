"""Copies of a question, however they are spelled, are never on both sides of the test set's border."""

import json
import random

import pytest

from evaluation.asking.test_set import rows_in_training
from evaluation.verdict.gate import load_gate
from phi3flow.app.cli import main
from phi3flow.chats.alike.folding import folded_words
from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import load_chats
from training.data.prepare import prepare
from training.data.small_slices import ENOUGH

QUESTION = "how do i reset my password"
SPELLINGS = [
    "How do I reset my password?",
    "how do i RESET my password!!!",
    "How do I reset  my\npassword",
    "How do I re\u200bset my password?",
    "\uff28\uff4f\uff57 do I reset my password?",
    "How do I r\u0435set my p\u0430ssw\u043erd?",  # Cyrillic
    "Hello! How do I reset my password?",
    "Good morning, how do I reset my password? Thanks in advance!",
    "Hi there, how do I reset my password please? Kind regards",
]


def chat(question, answer, **labels):
    return Chat(({"role": "user", "content": question}, {"role": "assistant", "content": answer}), **labels)


def write(path, chats):
    path.write_text("".join(json.dumps(each.row()) + "\n" for each in chats), encoding="utf-8")
    return str(path)


def groups(*texts):
    found = question_groups([{"role": "user", "content": text}] for text in texts).tolist()
    return len(set(found))


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_folds_to_the_same_words(text):
    assert folded_words(text) == QUESTION.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hallo, wo ist mein Paket? Mit freundlichen Grüßen", "wo ist mein paket"),
        ("Bonjour, où est mon colis ? Merci beaucoup", "où est mon colis"),
        ("Hola, ¿dónde está? Muchas gracias", "dónde está"),
        ("Hello!", "hello"),
        ("Thanks, bye", "thanks bye"),
        ("?!", "? !"),
        ("\u0643\u062a\u0627\u0628", "\u0643\u062a\u0627\u0628"),
    ],
)
def test_greetings_and_sign_offs_fall_away_unless_nothing_else_is_there(text, words):
    assert folded_words(text) == words.split()


def test_short_prompts_are_compared_by_their_characters():
    assert groups("reset my password", "reset my passwords") == 1
    assert groups("password reset please", "password-reset") == 1
    for one, other in [("Capital of Iran?", "Capital of Iraq?"), ("invoice 1234567", "invoice 1234568")]:
        assert groups(one, other) == 2
    assert groups("symbol of helium", "symbol of lithium", "Can you write C?", "Can you write Cr?") == 4


def support(seed):
    """Realistic support data: 100 questions, each in one to nine spellings."""
    rng = random.Random(seed)
    topics = [f"{verb} my {thing}" for verb in ("return", "cancel", "track", "change") for thing in THINGS]
    rows = []
    for topic in topics:
        for spelled in rng.sample(SPELLINGS, rng.randint(1, 9)):
            rows.append(chat(spelled.replace("reset", topic.split()[0]).replace("password", topic), topic))
    return rows


THINGS = [
    *("order", "parcel", "invoice", "address", "refund", "voucher", "account", "subscription", "password"),
    *("kettle", "tent", "lamp", "bicycle", "ticket", "booking", "policy", "contract", "delivery", "card"),
    *("payment", "warranty", "profile", "newsletter", "phone", "email"),
]


@pytest.mark.parametrize("mode", ["drop", "report"])
@pytest.mark.parametrize("given", [False, True])
def test_no_question_of_the_test_set_is_trained_on_with_an_exclamation_mark(tmp_path, mode, given):
    rows = support(3)
    test = None
    if given:
        test = tmp_path / "own.jsonl"
        write(test, [chat(f"{turn.prompt[0]['content']} !", "x") for turn in rows[::9]])
    data = prepare(
        [write(tmp_path / "chats.jsonl", rows)], tmp_path / "data", test=test, near_duplicates=mode
    )
    assert rows_in_training(load_chats(data.files["test"]), data.files["test"]) == 0
    if given:
        assert data.counts.prompt_leaks > 30
    else:
        assert data.counts.moved > 10
    kept = [load_chats(data.files[split]) for split in ("train", "val", "test")]
    assert sum(map(len, kept)) == sum(getattr(data.counts, name) for name in ("train", "val", "test"))


def test_whole_clusters_go_to_one_side_whatever_the_order(tmp_path):
    rows = support(4)
    first = prepare([write(tmp_path / "a.jsonl", rows)], tmp_path / "a")
    random.Random(0).shuffle(rows)
    again = prepare([write(tmp_path / "b.jsonl", rows)], tmp_path / "b")
    assert [file.read_bytes() for file in first.files.values()] == [
        file.read_bytes() for file in again.files.values()
    ]
    sides = {}
    for split, file in first.files.items():
        for each in load_chats(file):
            sides.setdefault(" ".join(folded_words(each.prompt[0]["content"])), set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert set().union(*sides.values()) == {"train", "val", "test"}


def test_questions_about_different_documents_in_the_system_message_stay_apart(tmp_path):
    system = [{"role": "system", "content": f"The order {i} is a {THINGS[i % 25]}."} for i in range(200)]
    rows = [Chat((system[i], *chat("When does it arrive?", f"On day {i}.").messages)) for i in range(200)]
    data = prepare([write(tmp_path / "chats.jsonl", rows)], tmp_path / "data")
    assert (data.counts.moved, data.counts.test > 5) == (0, True)


def test_prepare_names_slices_that_are_too_small(tmp_path, capsys):
    assert load_gate().min_rows == ENOUGH
    rows = [chat(f"What is {i} plus {i}?", f"{2 * i}", slice="sums" if i % 2 else "few") for i in range(120)]
    source = write(tmp_path / "chats.jsonl", rows)
    for _ in range(2):  # also where nothing is written again
        assert main(["prepare", source, "--out", str(tmp_path / "data")]) == 0
        said = capsys.readouterr().out
        assert "slices with fewer than 30 different questions, too few to tell: few (" in said
    many = [chat(f"What is {i} plus {i}?", f"{2 * i}") for i in range(600)]
    command = ["prepare", write(tmp_path / "many.jsonl", many), "--out", str(tmp_path / "many"), "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert "slices" not in " ".join(told["warnings"])
    assert told["primary"]["primary"] == "exact_match"
