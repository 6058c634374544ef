"""Take the report's pictures in docs/images: `python docs/make_screenshots.py runs/demo/report.html`.

One is as wide as a desktop window, one as a phone. Needs Chromium: Playwright's own, or the one given with
--browser.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).with_name("images")


class View(NamedTuple):
    """A window in CSS pixels; `scale` is the number of picture pixels per CSS pixel."""

    width: int
    height: int
    scale: float


VIEWS = {"report": View(1200, 1130, 1.0), "report-phone": View(390, 1080, 1.5)}


def take(report: Path, folder: Path, browser: str | None) -> list[Path]:
    """Take the top of the page in each view. Raises RuntimeError if the page is wider than the window."""
    pictures = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser)
        for name, view in VIEWS.items():
            page = chromium.new_page(
                viewport={"width": view.width, "height": view.height},
                device_scale_factor=view.scale,
                color_scheme="light",
            )
            page.goto(report.resolve().as_uri())
            _check_width(page, name)
            pictures.append(folder / f"{name}.png")
            page.screenshot(path=pictures[-1])
            page.close()
        chromium.close()
    return pictures


def _check_width(page: Page, name: str) -> None:
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    if width > window:
        raise RuntimeError(f"{name}: the page is {width} pixels wide in a window of {window}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="report.html of a comparison")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    parser.add_argument("--browser", help="path of a Chromium")
    arguments = parser.parse_args()
    for picture in take(arguments.report, arguments.out, arguments.browser):
        print(picture)
