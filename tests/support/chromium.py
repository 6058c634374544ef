"""A real browser whose pages may talk to this machine alone."""

import os
import shutil
import socket
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Notes every text that the last answer goes through: the proof that it grew.
WATCH = """() => {
    window.stages = [];
    new MutationObserver(() => {
        const now = [...document.querySelectorAll('.phi3flow-answer')].at(-1)?.textContent;
        if (now && now !== window.stages.at(-1)) window.stages.push(now);
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@contextmanager
def chromium():
    """A browser; the test is skipped where there is none, unless PHI3FLOW_REQUIRE_BROWSER is set."""
    path = shutil.which("chromium")
    if not path:
        missing = "Chromium is missing: apt-get install chromium"
        if os.environ.get("PHI3FLOW_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, **options):
    """A fresh page on `url`; what it asks of other machines, and its own errors, are errors."""
    asked, errors = [], []
    context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - it sets an attribute on it
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert {urlsplit(each).hostname for each in asked if not each.startswith(("data:", "blob:"))} == {
        "127.0.0.1"
    }
    assert not errors


def free_ports(count):
    """Different from each other, because all are held until the last is known."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
