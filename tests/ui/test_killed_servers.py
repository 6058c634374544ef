"""The real stack behind the page, with long answers: stopped, taken home, killed and started again."""

import json
import os
import signal
from pathlib import Path

import pytest
from chromium import chromium, free_ports, opened
from tiny import lively_model, new_tokenizer, saved
from up_process import asked_directly, interrupt, listeners, running_up

pytestmark = [pytest.mark.browser, pytest.mark.slow]
QUESTION = "Who founded the fox?"
LAYERS = 16  # so that an answer takes seconds
CHARACTERS = 40  # of an answer: by then it has begun
MILLISECONDS = 30_000
BEGUN = f"() => document.querySelector('.phi3flow-answer')?.textContent.length > {2 * CHARACTERS}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With a slow model in it, whose answers are long."""
    folder, tokenizer = tmp_path_factory.mktemp("runs") / "slow", new_tokenizer()
    saved(lively_model(tokenizer, layers=LAYERS), tokenizer, folder / "tuned")
    return folder


@pytest.fixture
def ports():
    names = ("endpoint", "flow", "ui")
    return dict(zip(names, free_ports(len(names)), strict=True))


@pytest.fixture
def page():
    """A tab that stays open while the servers come and go."""
    with chromium() as browser, opened(browser, "about:blank") as made:
        yield made


def expect(locator):
    from playwright.sync_api import expect

    expect.set_options(timeout=MILLISECONDS)
    return expect(locator)


def ask(page, question):
    page.get_by_placeholder("Ask").fill(question)
    page.keyboard.press("Enter")


def answers(page):
    return page.locator(".phi3flow-answer")


def whole_answer(folder, ports):
    """What the page is to show in the end: the model is greedy."""
    return " ".join(asked_directly(folder, ports["flow"], QUESTION).split())


@pytest.mark.parametrize("killed", ["endpoint", "flow"])
def test_an_answer_whose_server_is_killed_is_cut_off_and_goes_on_after_the_restart(
    page, run, ports, tmp_path, killed
):
    with running_up(run, tmp_path, ports) as process:
        page.goto(f"http://127.0.0.1:{ports['ui']}")
        ask(page, QUESTION)
        page.wait_for_function(BEGUN, polling=20, timeout=MILLISECONDS)
        (server,) = listeners([ports[killed]])
        os.kill(server, signal.SIGKILL)
        told = process.communicate(timeout=30)[1]
        assert process.returncode == 1 and "was stopped by SIGKILL" in told
    with running_up(run, tmp_path, ports) as process:
        page.reload()
        expect(page.get_by_text("Cut off. ")).to_be_visible()
        kept, whole = " ".join(answers(page).inner_text().split()), whole_answer(tmp_path, ports)
        assert CHARACTERS <= len(kept) < len(whole) and whole.startswith(kept)
        page.get_by_role("button", name="Continue").click()
        expect(answers(page)).to_have_text(whole)
        expect(page.get_by_text("Cut off. ")).not_to_be_visible()
        ask(page, "And who founded the dog?")
        expect(answers(page)).to_have_count(2)
        expect(answers(page).first).to_have_text(whole)
        interrupt(process)


def test_an_answer_is_stopped_continued_regenerated_and_exported(page, run, ports, tmp_path):
    with running_up(run, tmp_path, ports) as process:
        page.goto(f"http://127.0.0.1:{ports['ui']}")
        ask(page, QUESTION)
        page.wait_for_function(BEGUN, polling=20, timeout=MILLISECONDS)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Cut off. Stopped.")).to_be_visible()
        whole = whole_answer(tmp_path, ports)
        kept = " ".join(answers(page).inner_text().split())
        assert len(kept) < len(whole) and whole.startswith(kept)
        page.get_by_role("button", name="Continue").click()
        expect(answers(page)).to_have_text(whole)
        page.get_by_role("button", name="Regenerate").click()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Cut off. Stopped.")).to_be_visible()
        page.get_by_role("button", name="Continue").click()
        expect(answers(page)).to_have_text(whole)
        page.get_by_role("button", name="This conversation").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Export for training").click()
        messages = json.loads(Path(download.value.path()).read_text())["messages"]
        assert [" ".join(message["content"].split()) for message in messages] == [QUESTION, whole]
        interrupt(process)
