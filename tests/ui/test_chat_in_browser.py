"""The pages in a real browser, against all that `phi3flow up --arena` starts, with either host of the flows.

PHI3FLOW_SCREENSHOTS=docs/images makes the pictures of the documentation.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from both_hosts import ENVIRONMENT
from chromium import WATCH, chromium, free_ports, opened
from up_process import asked_directly, interrupt, listeners, running_up

from phi3flow.core.service_stack import is_free

pytestmark = pytest.mark.browser
QUESTION = "Who founded Microsoft?"
# A tenth of a second for an answer: a busy machine may leave the page no frame between first and last token.
ATTEMPTS, ANSWER_MILLISECONDS = 8, 2000


AGENTS = pytest.param(
    "agents", marks=pytest.mark.skipif(not ENVIRONMENT.exists(), reason=f"no {ENVIRONMENT.name}: make agents")
)


class Up(NamedTuple):
    host: str
    ports: dict[str, int]
    project: Path


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module", params=["promptflow", AGENTS])
def up(request, browser, demo_run, tmp_path_factory):
    """`phi3flow up` on free ports, by name, and the project; sees to it that Ctrl-C ends all of it."""
    for kept in (*demo_run.glob("chat.sqlite*"), *demo_run.glob("preferences.jsonl")):
        kept.unlink()
    names = ("endpoint", "base", "flow", "base_flow", "ui")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    project = tmp_path_factory.mktemp("project")
    with running_up(demo_run, project, ports, "--arena", "--host", request.param) as process:
        yield Up(request.param, ports, project)
        interrupt(process)
    assert all(is_free(port) for port in ports.values())
    assert not list(demo_run.glob("up/promptflow*")), "the throw-away Prompt flow home is still there"


@pytest.fixture
def page(up, browser):
    size = {"width": 1200, "height": 720}
    with opened(browser, f"http://127.0.0.1:{up.ports['ui']}", viewport=size, color_scheme="light") as made:
        yield made


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("PHI3FLOW_SCREENSHOTS", tmp_path))


def answers(page):
    return page.locator(".phi3flow-answer")


def answer_of(up, flow):
    return asked_directly(up.project, up.ports[flow], QUESTION).strip()


def stages_seen(page):
    """The different texts that the answers have had on this page."""
    return {stage.strip("▌ \n") for stage in page.evaluate("window.stages")}


def test_an_answer_grows_in_the_page_and_a_reload_finds_it(page, up, pictures):
    from playwright.sync_api import expect

    page.get_by_role("button", name=QUESTION).wait_for()
    page.evaluate(WATCH)
    page.get_by_placeholder("Ask the tuned model").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text(re.compile(r"Bill Gates.*\.\s*$"), timeout=30_000)
    again = page.get_by_role("button", name="Regenerate")
    expect(again).to_be_visible()
    final = answers(page).inner_text().strip()
    assert final == answer_of(up, "flow")
    stages = stages_seen(page)
    for _ in range(ATTEMPTS):
        if len(stages) >= 3:
            break
        again.click()
        page.wait_for_timeout(ANSWER_MILLISECONDS)
        stages = stages_seen(page)
    assert len(stages) >= 3 and all(final.startswith(stage) for stage in stages)
    expect(answers(page)).to_have_text(final)
    page.screenshot(path=pictures / "chat.png")
    page.get_by_role("button", name="Details").click()
    expect(page.get_by_text("Verdict: ")).to_be_visible()
    page.reload()
    expect(answers(page)).to_have_text(final, timeout=30_000)


def test_a_vote_in_the_arena_is_counted_by_the_verdict(page, up, demo_run, pictures):
    from playwright.sync_api import expect

    page.get_by_role("link", name="Arena").click()
    page.get_by_placeholder("Ask both models").fill(QUESTION)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Both bad").wait_for(timeout=30_000)
    texts = [text.strip() for text in answers(page).all_inner_texts()]
    truth = {"tuned": answer_of(up, "flow"), "base": answer_of(up, "base_flow")}
    assert sorted(texts) == sorted(truth.values())
    page.screenshot(path=pictures / "arena.png")
    side = texts.index(truth["tuned"])
    page.get_by_role("button", name="is better").nth(side).click()
    expect(page.get_by_role("heading", name="is tuned")).to_be_visible()
    counted = subprocess.run(
        [Path(sys.executable).with_name("phi3flow"), "verdict", demo_run / "preferences.jsonl"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "Tuned wins 100" in counted.stdout and counted.returncode == 4


def test_the_report_page_shows_the_verdict_and_the_lineage(page):
    from playwright.sync_api import expect

    page.get_by_role("link", name="Report").click()
    expect(page.get_by_text("tuned, exact match")).to_be_visible()
    page.get_by_text("tuned: model").click()
    expect(page.get_by_text("command: phi3flow train")).to_be_visible()


def test_services_listen_on_loopback_alone_and_hold_the_keys_that_they_need(up):
    import psutil

    endpoint, page = {"PHI3FLOW_ENDPOINT_KEY"}, {"PHI3FLOW_FLOW_KEY"}
    flow = {"PF_ENCRYPTION_KEY", *page} if up.host == "promptflow" else page
    needed = {"endpoint": endpoint, "base": endpoint, "flow": flow, "base_flow": flow, "ui": page}
    ports = up.ports
    pid_of = {port: pid for pid, port in listeners(ports.values()).items()}
    assert sorted(pid_of) == sorted(ports.values())
    for name, port in ports.items():
        process = psutil.Process(pid_of[port])
        keys = {
            key: value
            for key in {"PF_ENCRYPTION_KEY", *endpoint, *page}
            if (value := process.environ().get(key))
        }
        assert keys.keys() == needed[name]
        assert not any(key in " ".join(process.cmdline()) for key in keys.values())
        assert {c.laddr.ip for c in process.net_connections("tcp") if c.status == "LISTEN"} == {"127.0.0.1"}
