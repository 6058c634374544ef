"""Take docs/images/mlflow.png: `python docs/make_mlflow_screenshot.py runs/demo/tuned`.

Logs the run of a trained model to a temporary store, as `phi3flow train` does, and takes a picture of
MLflow's page with its curves. Needs Chromium: Playwright's own, or the one given with --browser.
"""

import argparse
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from playwright.sync_api import Route, sync_playwright

from phi3flow.core.service_stack import LOOPBACK, Service, Stack
from training.tracking.mlflow_run import LOCAL_STORE, track

PICTURE = Path(__file__).with_name("images") / "mlflow.png"
DRAWN = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= 4"
SHOWN = {"width": 1280, "height": 1000}
# MLflow opens its assistant's panel on the first visit.
NO_PANEL = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
SECONDS = 60.0


def mlflow_ui(store: Path, port: int) -> Service:
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    options = ["--backend-store-uri", f"sqlite:///{(store / LOCAL_STORE).resolve()}"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    return Service("mlflow ui", [*command, *options], port, "/health", "ui_port", store / "ui.log", quiet)


def photograph(url: str, picture: Path, browser: str | None) -> None:
    """Take the picture once the charts are drawn; block all requests to other machines."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SHOWN, color_scheme="light")
        page.route("**/*", _only_here)
        page.add_init_script(NO_PANEL)
        page.goto(url)
        page.wait_for_function(DRAWN, timeout=1000 * SECONDS)
        page.screenshot(path=picture)
        chromium.close()


def _only_here(route: Route) -> None:
    here = urlsplit(route.request.url).hostname in (LOOPBACK, None)
    route.continue_() if here else route.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="model folder that phi3flow train wrote")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    parser.add_argument("--browser", help="path of a Chromium")
    args = parser.parse_args()
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as scratch:
        store = Path(scratch)
        run = track(args.model, store)
        with Stack(mlflow_ui(store, port)):
            page = f"http://{LOOPBACK}:{port}/#/experiments/1/runs/{run}/model-metrics"
            photograph(page, args.out, args.browser)
    print(args.out)


if __name__ == "__main__":
    main()
