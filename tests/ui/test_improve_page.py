"""The improve page, headless: what it shows of each state of a run, and the commands that its buttons run."""

import json
import subprocess
import sys
from importlib.resources import files

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest
from waiting import until

from phi3flow.core.background import job_in
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from ui import workspace
from ui.improving.verbs import explained
from ui.store.improvements import progress_in

HOLDER = """
import sys
from pathlib import Path
from phi3flow.core.folder_lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
SHARE = {"exact_match": 0.5, "exact_match_ci": [0.4, 0.6]}


@pytest.fixture(autouse=True)
def main_module(monkeypatch):
    """Streamlit's AppTest leaves its script as `__main__`, which a spawned process would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run folder with a model, as the page of `phi3flow up` gets it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py", "mine"])
    config.set_option("server.address", "127.0.0.1")
    folder = tmp_path / "mine"
    (folder / "tuned").mkdir(parents=True)
    (folder / "tuned" / "config.json").write_text("{}")
    yield folder
    config.set_option("server.address", None)
    workspace._of_server.cache_clear()


def opened():
    page = AppTest.from_file(str(files("ui") / "improve_page.py"), default_timeout=120).run()
    assert not page.exception
    return page


def press(page, name):
    next(button for button in page.button if button.label == name).click().run()
    assert not page.exception


def begun(run, *done, verdict=None):
    """Improvement 1, of which these steps are done."""
    folder = run / "improve" / "1"
    names = {"rows": "chats.jsonl", "data": "data", "training": "tuned", "comparison": "report.json"}
    steps = [
        {"name": name, "command": f"phi3flow {name}", "makes": f"mine/improve/1/{made}"}
        for name, made in names.items()
    ]
    told = {"kind": "chats", "recipe": "tiny-cpu", "model": "mine/tuned", "replace_personal": False}
    folder.mkdir(parents=True)
    (folder / "improvement.json").write_text(json.dumps(told | {"steps": steps}))
    for name in done:
        (folder / names[name]).mkdir()
    if verdict:
        (folder / "tuned" / "config.json").write_text('{"new": true}')
        report = {
            "verdict": verdict,
            "reasons": ["<b>Because</b>"],
            "base": SHARE,
            "tuned": SHARE,
            "failed": 0,
        }
        (folder / "report.json").write_text(json.dumps(report))
        models = [Artifact.of("model", path) for path in (run / "tuned", folder / "tuned")]
        outputs = [Artifact.of("report", folder / "report.json")]
        write_manifest(folder, "report", inputs=models, outputs=outputs)


def ended(run, exit_code, log):
    job = {"command": [], "pid": 1, "born": 0.0, "ended": 1.0, "exit_code": exit_code}
    (run / "improve" / "job.json").write_text(json.dumps(job))
    (run / "improve" / "job.log").write_text(log)


def texts(page, *kinds):
    return [element.value for kind in kinds for element in page.get(kind)]


def test_a_run_without_feedback_is_told_how_to_get_some(run):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write_jsonl(run / "data" / "test.jsonl", [{"messages": turns}])
    page = opened()
    assert any("nothing to learn from yet" in text for text in texts(page, "info"))
    assert not page.button and not page.error


def test_what_was_not_trained_here_is_not_improved_here(run):
    (run / "tuned" / "config.json").unlink()
    page = opened()
    assert texts(page, "code") == ["phi3flow feedback mine --out preferences.jsonl"] and not page.button


def test_a_failed_training_shows_its_error_with_the_repair_and_can_continue(run):
    begun(run, "rows", "data")
    ended(
        run,
        1,
        "1/4 rows: done\nerror: the model\ndid not change\nhint: raise learning_rate\nerror: stopped\n",
    )
    page = opened()
    assert texts(page, "error") == ["the model did not change"]
    assert "raise learning_rate" in texts(page, "code")
    assert [button.label for button in page.button] == ["Continue"]
    press(page, "Continue")
    job = job_in(run / "improve")
    assert job.command[-2:] == ["mine", "--resume"] and job.pid != 1
    until(lambda: not job_in(run / "improve").is_running, 120)


@pytest.mark.parametrize(("code", "said"), [(130, "Stopped. Nothing is lost"), (None, "nothing tells why")])
def test_a_stopped_or_killed_training_says_so(run, code, said):
    begun(run, "rows")
    ended(run, code, "120 of 1200 steps, 12.5 a second, about 90 s left; loss 1.2\n")
    page = opened()
    assert any(said in text for text in texts(page, "info", "warning"))


def test_another_command_that_writes_the_run_is_named(run):
    begun(run, "rows")
    ended(run, 130, "")
    command = [sys.executable, "-c", HOLDER, run / "improve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        page = opened()
        assert any(f"process {holder.pid}" in text.replace("\\", "") for text in texts(page, "info"))
        assert not page.button
        holder.communicate()
    assert [button.label for button in opened().button] == ["Continue"]


def test_a_better_model_is_promoted_and_taken_back(run):
    begun(run, "rows", "data", "training", verdict="promote")
    page = opened()
    assert any("&lt;b&gt;Because" in body for body in (each.proto.body for each in page.get("html")))
    press(page, "Serve the new model")
    (kept,) = json.loads((run / "promoted.json").read_text())
    assert (kept["improvement"], kept["because"]) == (1, "")
    assert any("Answers come from improvement 1" in text for text in texts(page, "success"))
    assert "Serve the new model" not in [button.label for button in page.button]
    press(page, "Undo: serve the former model again")
    assert json.loads((run / "promoted.json").read_text()) == []


def test_a_model_that_is_not_better_is_served_only_with_a_reason(run):
    begun(run, "rows", "data", "training", verdict="hold")
    page = opened()
    (button,) = [button for button in page.button if button.label.startswith("Serve")]
    assert button.disabled
    page.text_input[0].set_value("People like it.").run()
    press(page, "Serve the new model anyway")
    (kept,) = json.loads((run / "promoted.json").read_text())
    assert (kept["verdict"], kept["because"]) == ("hold", "People like it.")


def test_the_page_beyond_this_machine_insists_on_a_login(run):
    config.set_option("server.address", "0.0.0.0")  # noqa: S104 - it refuses to go on
    assert not opened().title


def test_who_logged_in_sees_no_rows_and_can_change_nothing(run):
    begun(run, "rows", "data", "training", verdict="promote")
    (run / "promoted.json").write_text('[{"improvement": 1, "promoted": "2026-11-28", "verdict": "promote"}]')

    def page(folder):
        from pathlib import Path

        from ui.improve_page import show_page

        show_page(Path(folder), may_change=False)

    seen = AppTest.from_function(page, args=("mine",), default_timeout=60).run()
    assert not seen.exception and not seen.button and not seen.get("dataframe")
    (told,) = texts(seen, "success")
    assert told.replace("\\", "") == "Answers come from improvement 1, promoted 2026-11-28."
    assert texts(seen, "code") == ["phi3flow improve mine"]


def test_progress_and_errors_are_read_from_the_log():
    lines = [
        "  10 of 1,200 steps, 1.0 a second",
        "  300 of 1,200 steps, 2 a second; loss 3",
        "loss of 2 of 3",
    ]
    assert progress_in(lines) == (0.25, "300 of 1,200 steps, 2 a second; loss 3")
    assert progress_in([*lines, "4/4 comparison: phi3flow compare mine"]) == progress_in([]) == (0.0, "")
    assert explained(["hint: no", "error: a", "b", "hint: c", "error: d"]) == ("a\nb", "c")
    assert explained(["fine"]) == ("", "")
