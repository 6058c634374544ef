"""The loop in a real browser: chat, votes, improve, compare, promote, against everything that `up` starts.

    PHI3FLOW_REQUIRE_BROWSER=1 make test-slow ARGS=tests/ui/test_improve_in_browser.py

PHI3FLOW_SCREENSHOTS=docs/images makes the picture of the documentation.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from chromium import chromium, free_ports, opened
from up_process import listeners, running_up
from waiting import until

from phi3flow.app.cli import main
from phi3flow.core.background import job_in
from phi3flow.core.service_stack import is_free
from ui.store.conversations import Conversations

pytestmark = [pytest.mark.browser, pytest.mark.slow]
QUESTION, WANTED = "Who founded Microsoft?", "Microsoft was founded by Bill Gates."
MILLISECONDS = 300_000
RECIPE = """
steps = 240
batch_size = 16
learning_rate = 2e-3
max_length = 128
eval_every = 60
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def run(browser, demo_run, tmp_path_factory):
    """A run whose tuned model knows nothing yet: the demo's base, with the demo's chats to learn from."""
    folder = tmp_path_factory.mktemp("project") / "mine"
    for name in ("base", "tuned"):
        shutil.copytree(demo_run / "base", folder / name)
    questions = (demo_run / "test.jsonl").read_text().splitlines(keepends=True)
    (folder / "test.jsonl").write_text("".join(questions[::6]))
    words = ["--out", folder / "data", "--test", folder / "test.jsonl", "--near-duplicates", "report"]
    assert main(["prepare", *map(str, [demo_run / "chats.jsonl", *words])]) == 0
    (folder.parent / "short.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def ports():
    names = ("endpoint", "base", "flow", "base_flow", "ui")
    return dict(zip(names, free_ports(len(names)), strict=True))


@pytest.fixture
def page(browser):
    with opened(
        browser, "about:blank", viewport={"width": 1200, "height": 1100}, color_scheme="light"
    ) as made:
        made.set_default_timeout(MILLISECONDS)
        yield made


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("PHI3FLOW_SCREENSHOTS", tmp_path))


def expect(locator):
    from playwright.sync_api import expect

    expect.set_options(timeout=MILLISECONDS)
    return expect(locator)


def go(page, ports, path=""):
    page.goto(f"http://127.0.0.1:{ports['ui']}/{path}")


def press(page, name):
    button = page.get_by_role("button", name=name, exact=True)
    button.wait_for(timeout=MILLISECONDS)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    button.click()


def end(process):
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def serves(ports, model):
    """Whether the process on the endpoint's port was started for this model folder."""
    found = listeners([ports["endpoint"]])
    return any(str(model) in psutil.Process(pid).cmdline() for pid in found)


def say_what_was_wanted(page, ports):
    """A correction on the chat page."""
    go(page, ports)
    page.get_by_placeholder("Ask the tuned model").fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("radio", name="Thumbs down").click()
    page.get_by_label("The answer that you wanted").fill(WANTED)
    page.get_by_label("The answer that you wanted").press("Control+Enter")


def vote(page, ports):
    go(page, ports, "arena")
    page.get_by_placeholder("Ask both models").fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Tie").click(timeout=MILLISECONDS)
    page.get_by_text("Your vote: tie").wait_for()


def start_the_training(page, ports, pictures):
    go(page, ports, "improve")
    page.get_by_text("Good and corrected answers").click(timeout=MILLISECONDS)
    page.get_by_label("Recipe").fill("short.toml")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Start the training").wait_for(timeout=MILLISECONDS)
    page.screenshot(path=pictures / "improve.png", full_page=True)
    page.get_by_text("The same in a terminal").click()
    expect(page.get_by_text("phi3flow feedback").first).to_be_visible()
    press(page, "Start the training")


def serve_the_new_model(page, run):
    """By its verdict; a model that learned so little may have lost too much for one."""
    verdict = json.loads((run / "improve" / "1" / "report.json").read_text())["verdict"]
    if verdict == "promote":
        press(page, "Serve the new model")
        return
    expect(page.get_by_role("button", name="Serve the new model", exact=True)).to_have_count(0)
    page.get_by_text("Serve it anyway").click()
    page.get_by_label("Why is it served anyway?").fill("It answers more.")
    page.keyboard.press("Enter")
    press(page, "Serve the new model anyway")
    expect(page.get_by_text("It answers more.")).to_be_visible()


def test_the_loop_from_an_answer_to_a_better_model(page, run, ports, pictures):
    arena = (run, run.parent, ports, "--arena")
    with running_up(*arena) as process:
        say_what_was_wanted(page, ports)
        vote(page, ports)
        start_the_training(page, ports, pictures)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        job = job_in(run / "improve")
        end(process)
    assert job.is_running, "the training ended with the servers"
    with running_up(*arena) as process:
        go(page, ports, "improve")
        expect(page.get_by_text("of 240 steps").first).to_be_visible()  # it trains
        press(page, "Stop")
        expect(page.get_by_text("Stopped. Nothing is lost")).to_be_visible()
        press(page, "Continue")
        expect(page.get_by_text("New model against the present one")).to_be_visible()
        page.screenshot(path=pictures / "improve-result.png", full_page=True)
        learned = [json.loads(line) for line in (run / "improve" / "1" / "chats.jsonl").open()]
        assert [[turn["content"] for turn in row["messages"]] for row in learned] == [[QUESTION, WANTED]]
        serve_the_new_model(page, run)
        until(lambda: serves(ports, run / "improve" / "1" / "tuned"), 120)
        expect(page.get_by_text("Answers come from improvement 1")).to_be_visible()
        until(lambda: not is_free(ports["ui"]), 120)  # `up` starts the page again as well, last
        say_what_was_wanted(page, ports)
        store = Conversations(run / "chat.sqlite")
        (turn,) = store.turns(store.search()[0].id)
        made = json.loads((run / "improve" / "1" / "tuned" / "manifest.json").read_text())
        assert turn.model_hash == made["outputs"][0]["sha256"]
        go(page, ports, "improve")
        press(page, "Undo: serve the former model again")
        until(lambda: serves(ports, run / "tuned"), 120)
        end(process)
