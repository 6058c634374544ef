"""The report's page in a real browser: on a desk and on a phone, light and dark."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chromium import chromium, opened
from matplotlib.figure import Figure

from evaluation.report.comparison import compare_rows
from evaluation.report.render import Training, write_report
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate

pytestmark = pytest.mark.browser
RIGHT, WRONG = "It is in Paris.", "It is in Rome."
OUTSIDE = """() => [...document.querySelectorAll('caption, .tiles dt, .tiles dd, h1, header p')]
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth
                || one.scrollWidth > one.clientWidth + 1)
    .map(one => one.textContent)"""
# The mean of the loss plot's colours as it is shown, 0 to 255.
BRIGHTNESS = """() => {
    const image = document.querySelector('figure img'), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [60, 30];
    const drawing = canvas.getContext('2d');
    drawing.filter = getComputedStyle(image).filter;
    drawing.drawImage(image, 0, 0, 60, 30);
    const shown = drawing.getImageData(0, 0, 60, 30).data;
    return shown.filter((_, i) => i % 4 < 3).reduce((sum, one) => sum + one, 0) / (60 * 30 * 3);
}"""


def rows():
    kinds = [(WRONG, RIGHT)] * 40 + [(RIGHT, WRONG)] * 12 + [(RIGHT, RIGHT)] * 8
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Where is {}?")]
    return [
        ScoredRow(
            i + 1,
            None,
            "few" if i % 9 == 0 else "a slice with quite a long name of its own",
            [{"role": role, "content": text.format(i)} for role, text in turns],
            RIGHT,
            *(Answer(text, 0.3) for text in both),
        )
        for i, both in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    figure = Figure(figsize=(7, 3.6))
    figure.add_subplot().plot([3, 2, 1])
    figure.savefig(folder / "loss.png")
    made = rows()
    report = compare_rows(made, load_gate(), notes=["These are toy models."])
    write_report(report, made, folder, training=Training(folder / "loss.png", {}, 128, "window"))
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/report.html"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_the_plot_follows_the_scheme(browser, address, width, scheme):
    window = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with opened(browser, address, **window) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OUTSIDE) == []
        assert (page.evaluate(BRIGHTNESS) > 128) == (scheme == "light")
        assert page.get_by_text("Note: These are toy models.").is_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_examples_are_paged_and_show_the_whole_conversation(browser, address, width):
    with opened(browser, address, viewport={"width": width, "height": 900}) as page:
        cost = page.locator("details.group").first
        assert cost.locator("article:visible").count() == 5
        for text in ("Be brief.", "Hello.", "Where is 40?"):
            assert cost.get_by_text(text, exact=True).first.is_visible()
        assert not cost.get_by_text("Where is 51?", exact=True).is_visible()
        cost.get_by_text("Cost, 11 to 12 of 12").click()
        assert cost.locator("article:visible").count() == 2  # one page at a time
        assert cost.get_by_text("Where is 51?", exact=True).is_visible()
        assert page.get_by_text("too few rows", exact=True).count() == 1
