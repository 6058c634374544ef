"""The pages, headless, against real servers that speak the wire format of `pf flow serve`."""

import json
import sqlite3
from importlib.resources import files

import pytest
from fake_flow import fake_flow
from streamlit import config
from streamlit.testing.v1 import AppTest

from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Sampling
from ui import workspace
from ui.answers import served_flow
from ui.store import database
from ui.store.conversations import Conversations
from ui.store.records import COMPLETE, Model

HOSTILE = "<script>alert(1)</script> ![x](http://evil.example/b.png) <|assistant|>"
HASHES = {"model": "aa" * 32, "data": "bb" * 32}


@pytest.fixture
def flow():
    with fake_flow() as server:
        yield server


@pytest.fixture
def run(monkeypatch, tmp_path, flow):
    """A run folder, and what `phi3flow up` gives the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py", "runs/demo"])
    monkeypatch.setenv("PHI3FLOW_FLOW_PORT", str(flow.port))
    config.set_option("server.address", "127.0.0.1")
    yield tmp_path / "runs" / "demo"
    config.set_option("server.address", None)
    workspace._of_server.cache_clear()
    served_flow._prompts.clear()


@pytest.fixture
def page(run):
    return opened("app.py")


def opened(script, **query):
    page = AppTest.from_file(str(files("ui") / script), default_timeout=90)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def ask(page, question):
    page.chat_input[0].set_value(question).run()
    assert not page.exception


def shown(page):
    return [
        element.proto.body
        for element in page.get("html")
        if '<div class="phi3flow-text' in element.proto.body
    ]


def texts(page):
    """Questions and answers, without the tags around them."""
    return [body.split("<p>")[-1].split('plain">')[-1].split("<")[0] for body in shown(page)]


def button(page, label):
    """The first one whose label begins so: a conversation's ends with its time."""
    return next(button for button in page.button if button.label.startswith(label))


def press(page, label):
    button(page, label).click().run()
    assert not page.exception


def test_the_empty_page_offers_the_runs_own_questions(run):
    chats = [
        [{"role": "system", "content": "Brief."}, {"role": "user", "content": "When does *it* sail?"}],
        [{"role": "user", "content": "x" * 200}],
        [{"role": "user", "content": "When does *it* sail?"}],
    ]
    write_jsonl(run / "data" / "val.jsonl", [{"messages": chat} for chat in chats])
    press(opened("app.py"), r"When does \*it\* sail\?")
    write_jsonl(run / "samples.jsonl", [{"question": "Who founded Microsoft?"}])
    page = opened("app.py")
    press(page, r"Who founded Microsoft\?")
    assert texts(page) == ["Who founded Microsoft?", "tuned says: Who founded Microsoft?."]
    assert not page.warning and not page.error
    figures = next(caption.value for caption in page.caption if "tokens" in caption.value)
    assert figures.startswith("tuned · first word after 0.") and "about 11 tokens (estimated)" in figures


def test_history_and_settings_reach_the_flow_and_a_new_chat_starts_without(page, flow):
    ask(page, "one")
    page.sidebar.text_area[0].set_value("Be brief.").run()
    page.sidebar.slider[0].set_value(0.7).run()
    page.sidebar.slider[1].set_value(32).run()
    ask(page, "two")
    assert flow.bodies[-1] == {
        "question": "two",
        "chat_history": [{"inputs": {"question": "one"}, "outputs": {"answer": "tuned says: one."}}],
        "system": "Be brief.",
        "temperature": 0.7,
        "max_tokens": 32,
    }
    press(page, "New chat")
    assert not shown(page)
    ask(page, "three")
    assert (flow.bodies[-1]["chat_history"], flow.bodies[-1]["system"]) == ([], "Be brief.")


def test_an_answer_cut_off_is_kept_marked_and_can_be_continued(page, flow):
    ask(page, "cut")
    assert texts(page) == ["cut", "tuned says: cut"]
    assert [w.value for w in page.warning] == [
        "Cut off. The connection broke before the answer was complete."
    ]
    press(page, "Continue")
    assert texts(page) == ["cut", "tuned says: cut"] and len(page.warning) == 1
    press(page, "Regenerate")
    assert [body["chat_history"] for body in flow.bodies] == [[], [], []]


def test_a_failure_is_one_sentence_with_what_to_do(page, monkeypatch):
    ask(page, "bug")
    assert [error.value for error in page.error] == [
        "The chat flow could not answer: its logs are in `runs/demo/up`."
    ]
    monkeypatch.setenv("PHI3FLOW_FLOW_PORT", "9")
    press(page, "Regenerate")
    assert [error.value for error in page.error] == [
        "No chat flow answers on port 9: start it with `phi3flow up`."
    ]


def test_hostile_text_is_shown_as_text_alone(page, flow):
    flow.answers[HOSTILE] = [HOSTILE]
    ask(page, HOSTILE)
    assert all("&lt;script&gt;" in body and "<img" not in body for body in shown(page))
    read_as_markdown = [e.value for kind in ("markdown", "caption", "title") for e in page.get(kind)]
    assert not any("evil" in text for text in [*read_as_markdown, *(b.help or "" for b in page.button)])
    assert not any("![" in button.label for button in page.button)


def test_a_reload_finds_the_conversation_by_its_address(page, run):
    ask(page, "keep this")
    name = page.query_params["c"]
    again = opened("app.py", c=name if isinstance(name, str) else name[0])
    assert texts(again) == ["keep this", "tuned says: keep this."]
    assert texts(opened("app.py", c="unknown")) == []
    again.sidebar.text_input[0].set_value("KEEP").run()
    assert button(again, "keep this")
    again.sidebar.text_input[0].set_value("nowhere").run()
    assert "Nothing found." in [caption.value for caption in again.caption]


def test_thumbs_and_comment_are_saved_with_the_answer(page, run):
    ask(page, "rate me")
    page.feedback[0].set_value(0).run()
    page.text_input(key=page.feedback[0].key.replace("thumb", "comment")).set_value("wrong").run()
    page.text_area(key=page.feedback[0].key.replace("thumb", "correction")).set_value("right").run()
    store = Conversations(run / "chat.sqlite")
    (turn,) = store.turns(store.search()[0].id)
    assert (turn.thumb, turn.comment, turn.answer) == (0, "wrong", "tuned says: rate me.")
    assert turn.correction == "right"


def test_a_long_conversation_says_how_much_is_dropped(page, run):
    store = Conversations(run / "chat.sqlite")
    chat = store.create("long", "", Sampling())
    for _ in range(5):
        turn = store.add(chat.id, "again", Model("tuned"))
        store.save(turn.id, answer="word " * 1000, status=COMPLETE)
    page = opened("app.py", c=chat.id)
    assert [info.value.split(":")[1] for info in page.info] == [
        " the first 2 answers and their questions are dropped (by an estimate of their tokens)."
    ]


def test_the_arena_hides_names_until_the_vote_and_writes_it_down(run, flow, monkeypatch):
    with fake_flow("base") as base:
        monkeypatch.setenv("PHI3FLOW_BASE_FLOW_PORT", str(base.port))
        monkeypatch.setattr("sys.argv", ["app.py", "runs/demo", "--arena"])
        write_jsonl(run / "samples.jsonl", [{"question": "who?"}])
        page = opened("arena_page.py")
        press(page, r"who\?")
        assert not any("votes" in caption.value for caption in page.caption)
        assert len(flow.bodies) == len(base.bodies) == 1
        names = [heading.value for heading in page.subheader]
        assert not any(word in name for name in names for word in ("base", "tuned"))
        sent = " ".join(str(element.proto) for kind in ("button", "html") for element in page.get(kind))
        assert "tuned-" not in sent and "base-" not in sent, "no key tells the sides apart"
        captions = " ".join(caption.value for caption in page.caption)
        assert "base" not in captions and "tuned" not in captions
        beside = opened("app.py", c=page.query_params["round"][0])
        assert len(texts(beside)) == 0, "the chat page would name the models"
        left = "base" if "base says" in texts(page)[1] else "tuned"
        press(page, f"{names[0]} is better")
        assert page.subheader[0].value == f"{names[0]} is {left}"
        assert page.success[0].value.startswith(f"Your vote: {left}.")
        (row,) = [json.loads(line) for line in (run / "preferences.jsonl").read_text().splitlines()]
        assert (row["vote"], row["left"]) == (left, left)
        assert row["chosen"] == [{"role": "assistant", "content": f"{left} says: who?."}]
        assert any("of 1 votes" in caption.value for caption in page.caption)
        base.answers["again"] = []
        ask(page, "cut")
        assert "A vote needs two complete answers." in [warning.value for warning in page.warning]


def test_the_report_page_shows_figures_and_where_they_come_from(run):
    (run / "tuned").mkdir(parents=True)
    share = {"exact_match": 0.25, "exact_match_ci": [0.2, 0.3]}
    report = {"verdict": "promote", "reasons": ["<b>Better.</b>"], "base": share, "tuned": share}
    report |= {"difference": 0.5, "difference_ci": [0.4, 0.6], "answered": 8, "expected": 9, "failed": 1}
    (run / "report.json").write_text(json.dumps(report))
    artifacts = [{"kind": kind, "path": "x", "sha256": value} for kind, value in HASHES.items()]
    manifest = {"kind": "model", "created": "2024", "command": "phi3flow train", "outputs": artifacts[:1]}
    (run / "tuned" / "manifest.json").write_text(json.dumps(manifest | {"inputs": artifacts[1:]}))
    (run / "manifest.json").write_text(json.dumps({"kind": "report", "created": "2025", "inputs": artifacts}))
    page = opened("report_page.py")
    assert [metric.value for metric in page.metric] == ["25.0 %", "25.0 %", "50.0"]
    assert "&lt;b&gt;Better.&lt;/b&gt;" in shown(page)[0]
    assert any("model aaaaaaaaaaaa from tuned" in text.value for text in page.text)


def test_a_page_beyond_this_machine_insists_on_a_login(run):
    config.set_option("server.address", None)
    page = opened("app.py")
    assert "nobody can log in" in page.error[0].value and not page.chat_input
    assert "server_metadata_url" in page.code[0].value


def test_a_chat_starts_with_the_system_prompt_of_the_training_data(run, flow):
    flow.system = "You answer for the desk."
    page = opened("app.py")
    ask(page, "one")
    assert flow.bodies[-1]["system"] == "You answer for the desk."
    assert any("System prompt of the training data" in caption.value for caption in page.caption)
    page.sidebar.text_area[0].set_value("").run()
    ask(page, "two")
    assert flow.bodies[-1]["system"] == "" and "is removed here" in page.info[0].value
    press(page, "Use that of the training data")
    ask(page, "three")
    assert flow.bodies[-1]["system"] == "You answer for the desk." and not page.info
    page.sidebar.text_area[0].set_value("Be rude.").run()
    assert "is changed here" in page.info[0].value
    press(page, "New chat")
    ask(page, "four")
    assert flow.bodies[-1]["system"] == "You answer for the desk."


def test_the_arena_asks_and_votes_under_the_system_prompt_of_the_training_data(run, flow, monkeypatch):
    flow.system = "You answer for the desk."
    with fake_flow("base") as base:
        monkeypatch.setenv("PHI3FLOW_BASE_FLOW_PORT", str(base.port))
        monkeypatch.setattr("sys.argv", ["app.py", "runs/demo", "--arena"])
        page = opened("arena_page.py")
        ask(page, "who?")
        assert [server.bodies[-1]["system"] for server in (flow, base)] == [flow.system] * 2
        press(page, "Tie")
        (row,) = [json.loads(line) for line in (run / "preferences.jsonl").read_text().splitlines()]
        assert row["prompt"][0] == {"role": "system", "content": flow.system}


def test_the_arena_of_a_run_without_its_base_says_how_to_serve_it(run):
    page = opened("arena_page.py")
    assert (
        "is not served here" in page.info[0].value and page.code[0].value == "phi3flow up runs/demo --arena"
    )


def test_deleting_asks_first(page, run):
    ask(page, "keep")
    store = Conversations(run / "chat.sqlite")
    name = store.search()[0].id
    page.session_state[f"menu-{name}"] = True
    page.run()
    press(page, "Delete")
    assert store.get(name) and "cannot be undone" in page.warning[0].value
    press(page, "Keep it")
    assert store.get(name) and not page.warning
    press(page, "Delete")
    press(page, "Delete for good")
    assert store.get(name) is None and not shown(page)


def test_what_was_regenerated_or_edited_stays_within_reach(page, flow):
    ask(page, "one")
    ask(page, "two")
    press(page, "Regenerate")
    same = [caption.value for caption in page.caption if "temperature 0" in caption.value]
    assert len(same) == 1, "it says why nothing changed"
    press(page, "Edit")
    page.text_area(key=next(area.key for area in page.text_area if "edited-" in area.key)).set_value("first")
    press(page, "Ask")
    assert texts(page) == ["first", "tuned says: first."]
    assert any(caption.value == "2 of 2" for caption in page.caption)
    press(page, "Earlier")
    assert texts(page) == ["one", "tuned says: one.", "two", "tuned says: two."]
    press(page, "Later")
    assert texts(page) == ["first", "tuned says: first."]


def test_a_question_that_the_database_does_not_take_is_shown_again(page, run, monkeypatch):
    ask(page, "one")
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    with sqlite3.connect(run / "chat.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        ask(page, "a long question")
        assert "database is locked" in page.error[0].value and page.code[0].value == "a long question"
        other.rollback()
    ask(page, "a long question")
    assert texts(page)[-1] == "tuned says: a long question." and not page.error


def test_a_chat_with_something_connected_has_its_name(run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["app.py", "runs/demo", "--name", "my-azure", "--context", "2048"])
    page = opened("app.py")
    assert page.chat_input[0].placeholder == "Ask my-azure"
    assert any("Answers come from my" in text.value for text in page.markdown)
    ask(page, "one")
    assert any(caption.value.startswith("my-azure · ") for caption in page.caption)
