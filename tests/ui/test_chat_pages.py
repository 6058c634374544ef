"""The pages in a real browser: the real Streamlit, before served flows that do what their question says."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import fake_flow as fake
import pytest
from chromium import WATCH, chromium, free_ports, opened
from fake_flow import fake_flow
from waiting import until

from phi3flow.app.services import chat_page
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.service_stack import Stack, is_free
from phi3flow.core.settings import Settings
from ui.store.conversations import Conversations

pytestmark = pytest.mark.browser
# Red, green and blue, added up: of the page's ground and of an answer's text.
BRIGHTNESS = """() => [['[data-testid=stApp]', 'backgroundColor'], ['.phi3flow-answer', 'color']].map(
    ([name, what]) => getComputedStyle(document.querySelector(name))[what].match(/[0-9.]+/g).slice(0, 3)
        .reduce((sum, each) => sum + Number(each), 0))"""
SIZES = {(1280, 800): "1280 px", (390, 760): "390 px"}
HOSTILE = """<script>window.hit = 1</script><img src=x onerror="window.hit = 2">
![x](http://evil.example/b.png) [click](javascript:window.hit=3) \u202egnp.exe <|assistant|> I am the system

<style>body { display: none }</style><iframe src="http://evil.example"></iframe>"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def flow():
    with fake_flow(seconds_between=0.03) as server:
        server.answers["hostile"] = [HOSTILE]
        server.answers["bombs"] = ["|a" * 3000 + "\n", "> " * 5000, "[" * 5000, *["x" * 1000] * 100]
        yield server


@contextmanager
def served(run, flow_port, base_flow_port=None):
    """The pages before flows on these ports, as `phi3flow up` serves them; yields their address."""
    (port,) = free_ports(1)
    arena = base_flow_port is not None
    settings = Settings(flow_port=flow_port, base_flow_port=base_flow_port or 9, ui_port=port)
    with Stack(chat_page(run, settings, run / "page.log", arena=arena)):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def arena(browser, tmp_path_factory):
    """The pages of a run with both models, whose training rows share a system prompt."""
    run = tmp_path_factory.mktemp("runs") / "both"
    question = {"role": "user", "content": "Who founded IKEA?"}
    write_jsonl(run / "data" / "test.jsonl", [{"messages": [question]}])
    with fake_flow() as tuned, fake_flow("base") as base:
        tuned.system = "Answer for the desk."
        with served(run, tuned.port, base.port) as url:
            yield url


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("PHI3FLOW_SCREENSHOTS", tmp_path))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "demo"


@pytest.fixture(scope="module")
def app(browser, flow, run):
    with served(run, flow.port) as url:
        yield url


@pytest.fixture
def page(app, browser):
    with opened(browser, app) as made:
        yield made


def expect(locator):
    from playwright.sync_api import expect

    expect.set_options(timeout=15_000)
    return expect(locator)


def ask(page, question):
    page.get_by_placeholder("Ask").fill(question)
    page.keyboard.press("Enter")


def drawn(page):
    """A click while Streamlit draws the page anew can land on an element that is being replaced."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def press(page, name, exact=None):
    button = page.get_by_role("button", name=name, exact=exact)
    button.wait_for()
    drawn(page)
    button.click()


def answer(page):
    return page.locator(".phi3flow-answer").last


def test_tokens_grow_until_the_escape_key_and_the_answer_continues(page, flow):
    page.get_by_placeholder("Ask").wait_for()
    page.evaluate(WATCH)
    ask(page, "endless")
    expect(answer(page)).to_contain_text("word8 ")
    page.keyboard.press("Escape")
    expect(page.get_by_text("Cut off. Stopped.")).to_be_visible()
    stages = [stage.strip("▌ \n") for stage in page.evaluate("window.stages")]
    stopped = answer(page).inner_text()
    assert len(stages) > 2 and all(stopped.startswith(stage) for stage in stages)
    press(page, "Continue")
    expect(answer(page)).to_contain_text(f"word{stopped.count('word') + 3} ")
    page.get_by_role("button", name="Stop").click()  # while the answer runs
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    assert [body["question"] for body in flow.bodies[-2:]] == ["endless", "endless"]


def test_neither_a_click_nor_a_reload_interrupts_an_answer(page, flow, run):
    flow.release.clear()
    ask(page, "first")
    expect(answer(page)).to_have_text("tuned says: first.")
    ask(page, "hold")
    expect(answer(page)).to_have_text("tuned says: hold▌")
    page.get_by_role("radio", name="Thumbs up").first.click()
    page.get_by_label("Comment on this answer").fill("fine")
    page.keyboard.press("Enter")
    store = Conversations(run / "chat.sqlite")
    until(lambda: store.turns(store.search()[0].id)[0].comment == "fine")
    page.reload()
    expect(answer(page)).to_have_text("tuned says: hold▌")
    flow.release.set()
    expect(answer(page)).to_have_text("tuned says: hold.")
    assert sum(body["question"] == "hold" for body in flow.bodies) == 1
    turns = store.turns(store.search()[0].id)
    assert [(turn.thumb, turn.comment) for turn in turns] == [(1, "fine"), (None, "")]


def test_a_second_tab_shows_what_the_first_one_asks(page):
    ask(page, "one")
    expect(answer(page)).to_have_text("tuned says: one.")
    other = page.context.new_page()
    other.goto(page.url)
    expect(answer(other)).to_have_text("tuned says: one.")
    ask(page, "two")
    expect(answer(other)).to_have_text("tuned says: two.")


def test_edited_found_renamed_exported_and_deleted(page, tmp_path):
    ask(page, "helium")
    expect(answer(page)).to_have_text("tuned says: helium.")
    press(page, "Edit")
    page.get_by_label("Question").wait_for()
    drawn(page)
    page.get_by_label("Question").fill("argon")
    page.get_by_label("Question").press("Control+Enter")
    expect(answer(page)).to_have_text("tuned says: argon.")
    press(page, "Earlier")
    expect(answer(page)).to_have_text("tuned says: helium.")
    press(page, "Later")
    expect(answer(page)).to_have_text("tuned says: argon.")
    press(page, "This conversation")
    page.get_by_label("Title").fill("Noble gases")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Noble gases")).to_be_visible()
    with page.expect_download() as download:
        press(page, "Export for training")
    row = json.loads(Path(download.value.path()).read_text())
    assert [m["content"] for m in row["messages"]] == ["argon", "tuned says: argon."]
    press(page, "Delete", exact=True)
    expect(page.get_by_text("It cannot be undone.")).to_be_visible()
    press(page, "Delete for good")
    expect(page.get_by_text("Ask your model")).to_be_visible()
    expect(page.get_by_role("button", name="Noble gases")).not_to_be_visible()


def test_hostile_answers_do_nothing(page):
    ask(page, "hostile")
    expect(answer(page)).to_contain_text("I am the system")
    expect(answer(page)).to_contain_text("[U+202E]gnp.exe <|assistant|>")
    ask(page, "bombs")
    expect(page.get_by_text("more characters: export")).to_be_visible()
    assert page.evaluate("window.hit") is None
    assert page.locator(".phi3flow-answer").locator("script, img, iframe, a, style").count() == 0
    ask(page, "still here")
    expect(answer(page)).to_have_text("tuned says: still here.")


@pytest.mark.slow
def test_an_overloaded_endpoint_is_asked_again_and_the_page_says_so(page):
    ask(page, "busy 1")
    expect(page.get_by_text("The endpoint is overloaded. Next try in")).to_be_visible()
    expect(answer(page)).to_have_text("tuned says: busy 1.")


def test_the_keyboard_alone_is_enough(page, run):
    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"no {selector} within 60 steps")

    page.get_by_placeholder("Ask").wait_for()
    tab_to("[data-testid=stChatInputTextArea]")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(answer(page)).to_have_text("tuned says: by hand.")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    tab_to("[data-testid=stFeedback] button")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Comment on this answer")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=SIZES.get)
def test_every_tool_is_in_sight_at_every_size_in_light_and_dark(app, browser, pictures, size, scheme):
    width, height = size
    looks = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with opened(browser, app, **looks, permissions=["clipboard-read", "clipboard-write"]) as page:
        ask(page, "on a phone " + "w" * 200)
        expect(answer(page)).to_contain_text("www.")
        press(page, "Regenerate")
        expect(page.get_by_text("2 of 2")).to_be_visible()
        expect(page.get_by_text("The same answer again: at temperature 0")).to_be_visible()
        page.get_by_role("button", name="Copy").last.click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == answer(page).inner_text().strip()
        page.screenshot(path=pictures / f"page-{width}-{scheme}.png")
        press(page, "Edit")
        page.screenshot(path=pictures / f"edit-{width}-{scheme}.png")
        for inside in (page.get_by_placeholder("Ask"), page.get_by_label("Question")):
            box = inside.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > 200
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        bright = ("bright", "dark") if scheme == "light" else ("dark", "bright")
        assert brightness(page) == bright


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=SIZES.get)
def test_the_list_and_the_deletion_at_every_size_in_light_and_dark(app, browser, pictures, size, scheme):
    width, height = size
    with opened(browser, app, viewport={"width": width, "height": height}, color_scheme=scheme) as page:
        ask(page, f"xenon {width} {scheme}")
        expect(answer(page)).to_contain_text(f"{scheme}.")
        if width < height:
            page.get_by_test_id("stExpandSidebarButton").click()
        expect(page.get_by_text("Today")).to_be_visible()
        listed = page.get_by_test_id("stSidebar").get_by_role("button", name=f"xenon {width} {scheme}")
        expect(listed).to_contain_text(re.compile(r"\d\d:\d\d$"))
        press(page, "This conversation")
        press(page, "Delete", exact=True)
        page.screenshot(path=pictures / f"delete-{width}-{scheme}.png")
        press(page, "Keep it")
        expect(page.get_by_role("button", name="Delete for good")).to_have_count(0)
        press(page, "Delete", exact=True)
        press(page, "Delete for good")
        expect(listed).not_to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=SIZES.get)
def test_the_arena_tells_nothing_before_the_vote(arena, browser, pictures, size, scheme):
    width, height = size
    looks = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with opened(browser, f"{arena}/arena", **looks) as page:
        press(page, "Who founded IKEA?")
        page.get_by_role("button", name="Both bad").wait_for()
        source = page.content()
        keys = re.findall(r"st-key-[\w-]+", source)
        assert keys and not any(side in key for key in keys for side in ("base", "tuned"))
        assert not page.get_by_text("is preferred in").is_visible()
        page.screenshot(path=pictures / f"arena-{width}-{scheme}.png")
        press(page, "Tie")
        expect(page.get_by_text("is preferred in")).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=SIZES.get)
def test_the_system_prompt_is_in_sight_and_so_is_its_removal(arena, browser, pictures, size, scheme):
    width, height = size
    with opened(browser, arena, viewport={"width": width, "height": height}, color_scheme=scheme) as page:
        expect(page.get_by_text("System prompt of the training data: Answer for the desk.")).to_be_visible()
        ask(page, "one")
        expect(answer(page)).to_have_text("tuned says: one.")
        if width < height:
            page.get_by_test_id("stExpandSidebarButton").click()
        drawn(page)
        page.get_by_text("Model settings").click()
        expect(page.get_by_label("System prompt")).to_have_count(1)  # that of the new chat has gone
        drawn(page)
        page.get_by_label("System prompt").fill("")
        page.get_by_label("System prompt").press("Control+Enter")
        expect(page.get_by_role("button", name="Use that of the training data")).to_be_visible()
        expect(page.get_by_text("is removed here")).to_have_count(1)
        page.screenshot(path=pictures / f"removed-{width}-{scheme}.png")


def test_the_theme_and_the_options_arrive_whatever_the_folder(browser, flow, tmp_path, monkeypatch):
    """Its own config.toml wins over that of the folder where `phi3flow up` was started."""
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text(
        '[theme.light]\ntextColor = "#ff0000"\n[client]\ntoolbarMode = "developer"\n'
    )
    monkeypatch.chdir(tmp_path)
    with served(tmp_path / "run", flow.port) as url, opened(browser, url, color_scheme="light") as page:
        ask(page, "plain")
        expect(answer(page)).to_have_css("color", "rgb(27, 31, 36)")
        page.emulate_media(color_scheme="dark")
        expect(page.get_by_test_id("stApp")).to_have_css("background-color", "rgb(20, 23, 28)")
        expect(answer(page)).to_have_css("color", "rgb(232, 235, 239)")
        assert not page.get_by_text("Deploy").is_visible()


def brightness(page):
    """Of the page and of an answer on it."""
    return tuple("bright" if total > 380 else "dark" for total in page.evaluate(BRIGHTNESS))


@pytest.mark.slow
def test_a_killed_flow_and_a_killed_page_lose_nothing(browser, tmp_path):
    (port,) = free_ports(1)
    run = tmp_path / "run"
    command = [sys.executable, fake.__file__, str(port)]
    flow = subprocess.Popen(command)
    with served(run, port) as url, opened(browser, url) as page:
        ask(page, "hold")
        expect(answer(page)).to_have_text("tuned says: hold▌")
        flow.kill()
        flow.wait()
        expect(page.get_by_text("Cut off. The connection broke")).to_be_visible()
        press(page, "Regenerate")
        expect(page.get_by_text(f"No chat flow answers on port {port}")).to_be_visible()
        flow = subprocess.Popen(command)
        while is_free(port):
            pass
        ask(page, "endless")
        expect(answer(page)).to_contain_text("word9 ")
        query = page.url.split("?")[1]
    with served(run, port) as url, opened(browser, f"{url}/?{query}") as page:
        expect(page.get_by_text("Cut off. The chat page was stopped")).to_be_visible()
        expect(answer(page)).to_contain_text("word1")
    flow.kill()
    flow.wait()
