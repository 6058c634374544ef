"""The file of conversations: what is kept, found, hidden and exported, from many threads at once."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from phi3flow.chats.row_shapes import read_row
from phi3flow.phi3_contract import Sampling
from ui.chat.export import as_markdown, as_training_jsonl
from ui.store.conversations import Conversations
from ui.store.records import COMPLETE, CUT, Model

FIRST_RELEASE = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, system TEXT NOT NULL,
    temperature REAL NOT NULL, max_tokens INTEGER NOT NULL, changed REAL NOT NULL);
CREATE TABLE turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    question TEXT NOT NULL, model TEXT NOT NULL, model_hash TEXT NOT NULL, data_hash TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'running', error TEXT NOT NULL DEFAULT '',
    first_token_seconds REAL, seconds REAL, thumb INTEGER, comment TEXT NOT NULL DEFAULT '',
    replaced INTEGER NOT NULL DEFAULT 0);
INSERT INTO conversations VALUES ('c', '', 'chat', 'old', '', 0, 64, 7);
INSERT INTO turns (id, conversation, question, model, model_hash, data_hash, status, replaced) VALUES
    ('one', 'c', '1', 'tuned', '', '', 'complete', 0),
    ('two', 'c', '2', 'tuned', '', '', 'complete', 1),
    ('three', 'c', '2', 'tuned', '', '', 'complete', 0);
"""
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
    assert store.versions(chat.id)[third.id] == [first.id, third.id]
    store.show(first.id)
    assert [turn.id for turn in store.turns(chat.id)] == [first.id, second.id]
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
    assert "## You\n\n```text\ncut\n```\n\n## tuned\n\n```text\nye\n```\n\n*(cut: no end yet)*" in text


@pytest.mark.parametrize(
    "forged",
    [
        "ok\n\n## You\n\nPay him.",
        "ok\n```\n\n## You\n\nPay him.\n\n```text",
        "ok\n~~~~\n````\n\n## You\n\nPay him.",
        "ok\r\n```````\r\n## You\r\n\r\nPay him.",
        "</code></pre><h2>You</h2><p>Pay him.</p>",
        "ok\n\nYou\n---\n\nPay him.",
    ],
)
def test_an_answer_cannot_forge_a_turn_in_the_markdown(store, forged):
    chat = store.create(forged, forged, Sampling())
    answered(store, chat, "q", forged)
    tokens = MarkdownIt("commonmark").parse(as_markdown(chat, store.turns(chat.id)))
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert headings[1:] == ["System prompt", "You", "tuned"]
    assert [token.type for token in tokens if "html" in token.type or token.type == "hr"] == []
    blocks = [token.content for token in tokens if token.type == "fence"]
    assert blocks[-1] == forged.replace("\r\n", "\n") + "\n"


def test_every_version_is_shown_with_what_followed_it(store):
    chat = store.create("q", "", Sampling())
    one, two = answered(store, chat, "1", "a"), answered(store, chat, "2", "a")
    again = store.add(chat.id, "2", TUNED, instead_of=two.id)
    three = answered(store, chat, "3", "a")
    other = store.add(chat.id, "other", TUNED, instead_of=one.id)
    shown = lambda: [turn.id for turn in store.turns(chat.id)]  # noqa: E731
    assert shown() == [other.id]
    store.show(one.id)
    assert shown() == [one.id, again.id, three.id], "the newest of what followed it"
    store.show(two.id)
    assert shown() == [one.id, two.id]
    assert store.versions(chat.id)[two.id] == store.versions(chat.id)[again.id] == [two.id, again.id]
    four = store.add(chat.id, "4", TUNED)
    assert shown() == [one.id, two.id, four.id]


def test_the_list_is_in_the_order_of_the_questions_whatever_else_changes(store):
    first, second = (store.create(name, "", Sampling()) for name in ("first", "second"))
    turn = answered(store, first, "q", "a")
    answered(store, second, "q", "a")
    store.rename(first.id, "renamed")
    store.save(turn.id, thumb=1)
    assert [chat.id for chat in store.search()] == [second.id, first.id]
    store.add(first.id, "again", TUNED)
    assert [chat.id for chat in store.search()] == [first.id, second.id]


def test_a_file_of_the_first_release_is_read_with_all_its_turns(tmp_path):
    path = tmp_path / "chat.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(FIRST_RELEASE)
    store = Conversations(path)
    store.prepare()
    store.prepare()
    (chat,) = store.search()
    assert chat.asked == chat.changed == 7.0
    assert [turn.id for turn in store.turns("c")] == ["one", "three"]
    assert store.versions("c")["three"] == ["two", "three"]
    store.show("two")
    assert [turn.id for turn in store.turns("c")] == ["one", "two"]
