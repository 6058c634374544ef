"""`phi3flow feedback`: votes, thumbs and corrections as rows, none of which asks what the test set asks."""

import json
import stat
from pathlib import Path

import pytest

from phi3flow.app.cli import main
from phi3flow.chats.files.sources import open_sources
from phi3flow.chats.intake import Intake
from phi3flow.chats.preferences import read_preferences
from phi3flow.chats.ratings import read_ratings
from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.phi3_contract import Sampling
from ui.store.conversations import Conversations
from ui.store.records import COMPLETE, CUT, Model
from ui.store.votes import append_vote

TUNED = Model("tuned")
HELD_OUT = "How do I reset the red printer on the second floor?"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    write_jsonl(folder / "data" / "test.jsonl", [chat(HELD_OUT, "Hold the button for ten seconds.")])
    return folder


@pytest.fixture
def page(run):
    made = Conversations(run / "chat.sqlite", "ada")
    made.prepare()
    return Page(made)


def chat(question, answer):
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


class Page:
    """One person at the chat page."""

    def __init__(self, store):
        self.store = store
        self.chat = None

    def opens(self, question, system=""):
        self.chat = self.store.create(question, system, Sampling())
        return self

    def gets(self, question, answer, *, instead_of=None, status=COMPLETE, **said):
        turn = self.store.add(self.chat.id, question, TUNED, instead_of=instead_of)
        self.store.save(turn.id, answer=answer, status=status, **said)
        return turn.id


def vote(run, ballot, question, chosen, *, base="I cannot say.", tuned="Press the green key."):
    append_vote(run / "preferences.jsonl", ballot, question, {"tuned": tuned, "base": base}, chosen)


def feedback(run, *words, out="rows.jsonl"):
    return main(["feedback", str(run), "--out", str(run / out), *words])


def rows_in(run, out="rows.jsonl"):
    return read_jsonl(run / out)


def test_votes_become_preferences_and_ties_are_counted(run, capsys):
    for number, chosen in enumerate(("tuned", "base", "tie", "both_bad")):
        vote(run, f"round-{number}", f"How do I scan page {number}?", chosen)
    vote(run, "same", "How do I copy?", "tuned", base="Press  it.", tuned="Press it.")
    assert feedback(run, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["from"] == {"votes": 2}
    assert told["left_out"] == {
        "votes without a preference (tie, both bad)": 2,
        "both answers are the same": 1,
    }
    found = list(read_preferences(*open_sources(str(run / "rows.jsonl")), Intake()))
    assert [(row.chosen["content"], row.rejected["content"]) for row in found] == [
        ("Press the green key.", "I cannot say."),
        ("I cannot say.", "Press the green key."),
    ]
    assert [row.prompt_id for row in found] == ["round-0", "round-1"]


def test_thumbs_on_answers_to_one_question_and_corrections_become_preferences(run, page):
    page.opens("one", system="Be brief.")
    first = page.gets("one", "answer 1", thumb=0, correction="answer 0", comment="too long")
    second = page.gets("one", "answer 2", instead_of=first)
    third = page.gets("one", "answer 3", instead_of=second, thumb=1)
    page.gets("another", "answer 4", instead_of=third, thumb=0)  # an edited question is another one
    page.gets("one", "ans", instead_of=third, thumb=0, status=CUT)
    assert feedback(run) == 0
    rows = rows_in(run)
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [
        ("answer 0", "answer 1"),
        ("answer 3", "answer 1"),
        ("answer 3", "answer 2"),
    ]
    assert {row["prompt"][0]["content"] for row in rows} == {"Be brief."}
    assert rows[0]["comment"] == "too long" and "comment" not in rows[1]


def test_good_and_corrected_answers_become_chats_that_prepare_reads(run, page):
    page.opens("a", system="Be brief.")
    page.gets("a", "wrong", thumb=0)
    page.gets("b", "right", thumb=1)
    page.gets("c", "right too", thumb=1)
    page.gets("d", "nobody said")
    page.opens("e")
    page.gets("e", "bad", thumb=0, correction="better")
    page.gets("f", "half", thumb=1, status=CUT)
    assert feedback(run, "--kind", "chats") == 0
    long, short = load_chats(run / "rows.jsonl")
    assert [turn["content"] for turn in long.messages] == [
        *("Be brief.", "a", "wrong", "b", "right", "c", "right too")
    ]
    assert [turn.get("weight") for turn in long.messages if turn["role"] == "assistant"] == [0, None, None]
    assert [turn["content"] for turn in short.messages] == ["e", "better"]


def test_no_test_question_is_exported(run, page, capsys):
    spelled = "hello! how do i reset the RED printer on the second floor?? thanks"
    vote(run, "leak", HELD_OUT, "tuned")
    vote(run, "spelled", spelled, "base")
    vote(run, "fine", "How do I reset the blue printer?", "tuned")
    page.opens("Hi")
    page.gets("Hi", "Hello!")
    page.gets(HELD_OUT, "Hold it.", thumb=1)
    page.gets("And then?", "Wait.", thumb=1)
    page.opens(HELD_OUT)
    page.gets(HELD_OUT, "Nobody rated this.")
    page.gets("And the blue one?", "The same.", thumb=1)
    assert feedback(run, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["left_out"] == {"ask a question of the test set": 2} and told["test_rows"] == 1
    assert [row["prompt_id"] for row in rows_in(run)] == ["fine"]
    page.opens("Where is the manual?")
    page.gets("Where is the manual?", "In the drawer.", thumb=1)
    page.gets(HELD_OUT, "Hold it.", thumb=1)
    assert feedback(run, "--kind", "chats", out="chats.jsonl") == 0
    kept = [row["messages"][-1]["content"] for row in rows_in(run, "chats.jsonl")]
    assert kept == ["The same.", "In the drawer."], "a test question takes no earlier answer with it"


def test_personal_data_are_counted_and_replaced_on_request(run, page, capsys):
    page.opens("x")
    question = (
        "My name is Ada Lovelace. Mail ada@contoso.com, call +49 30 901820, key sk-abcdefghijklmnop1234."
    )
    page.gets(question, "Done, Ada.\n\nKind regards,\nGrace Hopper", thumb=1, comment="Mr Turing said so")
    assert feedback(run, "--kind", "chats") == 0
    assert (
        "not replaced (--replace-personal does it): keys (1), e-mail addresses (1)" in capsys.readouterr().err
    )
    assert rows_in(run)[0]["messages"][0]["content"] == question
    assert feedback(run, "--kind", "chats", "--replace-personal", "--force", "--json") == 0
    (row,) = rows_in(run)
    assert [turn["content"] for turn in row["messages"]] == [
        "My name is [name]. Mail [e-mail address], call [phone number], key [key].",
        "Done, [name].\n\nKind regards,\n[name]",
    ]
    assert row["comment"] == "Mr [name] said so"
    told = json.loads(capsys.readouterr().out)["personal_data"]
    assert told == {"keys": 1, "e-mail addresses": 1, "phone numbers": 1, "names": 4}


def test_what_is_exported_is_shown_first_and_without_out_nothing_is_written(run, page, capsys):
    vote(run, "one", "How do I scan?", "tuned")
    page.opens("a")
    page.gets("a", "b", thumb=1, comment="yes")
    before = sorted(path.name for path in run.iterdir())
    assert main(["feedback", str(run)]) == 0
    shown = capsys.readouterr().out
    lines = {line.rsplit(None, 1)[0].strip(): line.rsplit(None, 1)[-1] for line in shown.splitlines() if line}
    assert lines["thumbs up"] == lines["comments"] == lines["votes"] == lines["exported"] == "1"
    assert "Nothing has left this machine." in shown and "--out FILE writes the rows" in shown
    assert sorted(path.name for path in run.iterdir()) == before
    assert feedback(run) == 0
    said = capsys.readouterr()
    assert "Nothing has left this machine." in said.err and "rows.jsonl: 1 row" in said.out


def test_the_file_is_for_its_owner_alone_and_is_not_replaced_by_accident(run, capsys):
    vote(run, "one", "How do I scan?", "tuned")
    assert feedback(run) == 0
    assert stat.S_IMODE((run / "rows.jsonl").stat().st_mode) == 0o600
    vote(run, "two", "How do I copy?", "base")
    assert feedback(run) == 2 and len(rows_in(run)) == 1
    assert "add --force to replace it" in capsys.readouterr().err
    assert feedback(run, "--force") == 0 and len(rows_in(run)) == 2


def test_a_row_that_is_there_twice_is_exported_once(run):
    for ballot in ("one", "two"):
        vote(run, ballot, "How do I scan?", "tuned")
    assert feedback(run) == 0 and len(rows_in(run)) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "x", "vote": "tuned", "prompt"', "preferences.jsonl:2: json: "),
        (
            '{"id": "x", "vote": "left", "prompt": []}',
            "preferences.jsonl:2: vote: must be one of tuned, base",
        ),
        (
            '{"id": "x", "vote": "base", "prompt": [], "chosen": null, "rejected": null}',
            "preferences.jsonl:2: chosen: must be a list of one message",
        ),
    ],
)
def test_a_broken_vote_is_named_and_nothing_is_written(run, capsys, line, told):
    vote(run, "one", "How do I scan?", "tuned")
    with (run / "preferences.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    assert feedback(run) == 2
    assert told in capsys.readouterr().err and not (run / "rows.jsonl").exists()


def test_a_run_without_feedback_is_bad_input(run, tmp_path, capsys):
    assert feedback(run) == 2
    assert "no chats and no votes" in capsys.readouterr().err
    vote(run, "one", HELD_OUT, "tuned")
    assert feedback(run) == 2
    said = capsys.readouterr().err
    assert "no preferences to export; nothing was written" in said and "hint: chat, vote" in said
    assert not (run / "rows.jsonl").exists()
    Path(run / "data" / "test.jsonl").unlink()
    assert feedback(run) == 0
    assert "no held-out test set, so no test question can be left out" in capsys.readouterr().err


def test_thumbs_become_rated_answers_and_the_next_command_is_told(run, page, capsys):
    page.opens("one", system="Be brief.")
    down = page.gets("one", "answer 1", thumb=0, comment="too long")
    page.gets("one", "answer 2", instead_of=down, thumb=1)
    page.gets("one", "answer 3", instead_of=down)
    page.opens(HELD_OUT)
    page.gets(HELD_OUT, "Hold it.", thumb=1)
    (run / "tuned").mkdir()
    (run / "tuned" / "config.json").write_text('{"hidden_size": 192}')
    assert feedback(run, "--kind", "thumbs") == 0
    (source,) = open_sources(str(run / "rows.jsonl"))
    found = list(read_ratings(source, Intake()))
    assert [(row.answer["content"], row.is_good) for row in found] == [
        ("answer 1", False),
        ("answer 2", True),
    ]
    assert [turn["content"] for turn in found[0].prompt] == ["Be brief.", "one"]
    said = capsys.readouterr().out
    assert "next: phi3flow train --method kto --data " in said
    assert f"--recipe dpo-tiny --model {run}/tuned --out {run}-2/tuned" in said
