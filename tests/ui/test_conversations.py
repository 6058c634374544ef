"""The file of conversations: what is kept, found, hidden and exported, from many threads at once."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3flow.chats.row_shapes import read_row
from phi3flow.phi3_contract import Sampling
from ui.conversations import Conversations
from ui.export import as_markdown, as_training_jsonl
from ui.records import COMPLETE, CUT, Model

TUNED = Model("tuned", "aa" * 32, "bb" * 32)


@pytest.fixture
def store(tmp_path):
    made = Conversations(tmp_path / "chat.sqlite")
    made.prepare()
    return made


def answered(store, conversation, question, answer, **columns):
    turn = store.add(conversation.id, question, TUNED)
    store.save(turn.id, **({"answer": answer, "status": COMPLETE} | columns))
    return store.turn(turn.id)


def test_a_conversation_is_found_again_with_everything_that_was_saved(store, tmp_path):
    chat = store.create("Who founded\n  Microsoft?", "Be brief.", Sampling(0.5, 64))
    turn = answered(
        store, chat, "Who founded Microsoft?", "Bill Gates.", thumb=1, comment="right", seconds=1.5
    )
    again = Conversations(tmp_path / "chat.sqlite")
    assert again.get(chat.id).title == "Who founded Microsoft?"
    assert again.get(chat.id).sampling == Sampling(0.5, 64)
    assert again.turns(chat.id) == [turn]
    assert (turn.answer, turn.thumb, turn.comment, turn.model_hash) == ("Bill Gates.", 1, "right", "aa" * 32)


def test_search_is_by_any_letter_case_and_takes_its_words_literally(store):
    chat = store.create("a", "", Sampling())
    answered(store, chat, "STRASSE?", "100%_sicher, Ärger")
    store.create("other", "", Sampling())
    assert [found.id for found in store.search("straße")] == [chat.id]
    assert [found.id for found in store.search("ärger")] == [chat.id]
    assert [found.id for found in store.search("100%_")] == [chat.id]
    assert not store.search("1%sicher") and not store.search("100_")


def test_renamed_deleted_and_asked_anew(store):
    chat = store.create("first", "", Sampling())
    first, second = answered(store, chat, "one", "1"), answered(store, chat, "two", "2")
    third = store.add(chat.id, "one, but better", TUNED, instead_of=first.id)
    assert [turn.id for turn in store.turns(chat.id)] == [third.id]
    assert store.turn(second.id).answer == "2", "what is replaced is hidden, not lost"
    store.rename(chat.id, "  new name ")
    assert store.get(chat.id).title == "new name"
    store.delete(chat.id)
    assert store.get(chat.id) is None and store.turn(third.id) is None
    store.save(third.id, answer="too late")
    assert store.turn(third.id) is None


def test_nobody_sees_the_conversations_of_another_person(store, tmp_path):
    chat = store.create("mine", "", Sampling())
    turn = answered(store, chat, "mine", "yes")
    other = Conversations(tmp_path / "chat.sqlite", owner="somebody else")
    other.delete(chat.id)
    other.rename(chat.id, "theirs")
    assert other.get(chat.id) is None and not other.turns(chat.id) and other.turn(turn.id) is None
    assert not other.search() and not other.search("mine")
    with pytest.raises(LookupError):
        other.add(chat.id, "intruding", TUNED)
    assert store.get(chat.id).title == "mine"


def test_an_answer_that_died_with_the_app_is_cut_off_at_the_next_start(store):
    chat = store.create("q", "", Sampling())
    turn = store.add(chat.id, "q", TUNED)
    store.save(turn.id, answer="half of")
    store.prepare()
    found = store.turn(turn.id)
    assert (found.status, found.answer) == (CUT, "half of") and "stopped" in found.error


def test_many_threads_write_at_once_and_nothing_is_lost(store, tmp_path):
    chats = [store.create(f"chat {number}", "", Sampling()) for number in range(4)]

    def write(number):
        for step in range(5):
            answered(Conversations(tmp_path / "chat.sqlite"), chats[number % 4], f"{number}.{step}", "yes")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    asked = [turn.question for chat in chats for turn in store.turns(chat.id) if turn.answer == "yes"]
    assert sorted(asked) == sorted(f"{number}.{step}" for number in range(8) for step in range(5))
    with sqlite3.connect(tmp_path / "chat.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_training_export_is_what_prepare_reads(store):
    chat = store.create("q", "Be brief.", Sampling())
    answered(store, chat, "good", "yes")
    answered(store, chat, "cut", "ye", status=CUT)
    answered(store, chat, "bad", "no", thumb=0)
    answered(store, chat, "also good", "yes \u2028 indeed")
    empty = store.create("nothing answered", "", Sampling())
    assert as_training_jsonl(empty, store.turns(empty.id)) == ""
    lines = as_training_jsonl(chat, store.turns(chat.id)).split("\n")
    assert lines[1:] == [""]
    parsed = read_row(json.loads(lines[0])).chat
    assert [(m["role"], m["content"]) for m in json.loads(lines[0])["messages"]] == [
        ("system", "Be brief."),
        ("user", "good"),
        ("assistant", "yes"),
        ("user", "also good"),
        ("assistant", "yes \u2028 indeed"),
    ]
    assert parsed
    text = as_markdown(chat, store.turns(chat.id))
    assert "## You\n\ncut\n\n## tuned\n\nye\n\n*(cut: no end yet)*" in text
