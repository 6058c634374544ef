"""One isolated environment for every test, and one run of the demo for those that need a trained model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from outside import PROXIES, nobody_leaves, unwatched

from phi3flow.core.lineage import read_manifest
from phi3flow.core.settings import PREFIX, Settings
from training.finetune import training_code

ROOT = Path(__file__).parents[1]
DEMO_SECONDS = 1800
SHARED = ("demo", "cloud_of_sums", "emulator")  # fixtures that take long to make
LONGEST = (*SHARED, "test_flows.py", "test_azure_lifecycle.py")


class DemoRun(NamedTuple):
    """A finished `phi3flow demo --json`: its folder, what it printed, and its exit code."""

    folder: Path
    report: dict[str, Any]
    exit_code: int


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, key or proxy of the person who runs the tests reaches them."""
    for name in (*(PREFIX + name.upper() for name in Settings.model_fields), "PF_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def pytest_configure(config: pytest.Config) -> None:
    """Whatever runs beside the first process, which trains the model, gives way to it."""
    if getattr(config, "workerinput", {}).get("workerid", "gw0") != "gw0":
        os.nice(5)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `pytest -n`; those that take longest start first, or all would wait for them at the end."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: LONGEST.index(group(item)) if group(item) in LONGEST else len(LONGEST))


def group(item: pytest.Item) -> str:
    """What shares a process: the users of a fixture that lasts the session, or else a file."""
    shared = (name for name in SHARED if name in getattr(item, "fixturenames", ()))
    return next(shared, item.path.name)


@pytest.fixture(scope="session")
def demo() -> DemoRun:
    """The demo itself, in `runs/test-demo`: trained once for each version of the training code.

    The comparison runs in every session. No process may ask another machine for anything.
    """
    folder = ROOT / "runs" / "test-demo"
    if any(is_of_other_code(folder / model) for model in ("base", "tuned")):
        shutil.rmtree(folder)
    command = [sys.executable, "-m", "phi3flow", "demo", "--json", "--out", str(folder)]
    ports = {"PHI3FLOW_ENDPOINT_PORT": "5061", "PHI3FLOW_BASE_PORT": "5062"}
    with nobody_leaves() as proxied:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=unwatched() | proxied | ports,
            stdout=subprocess.PIPE,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
        )
    if not ran.stdout:
        pytest.fail(f"phi3flow demo exited with {ran.returncode}; its messages stand above")
    return DemoRun(folder, json.loads(ran.stdout), ran.returncode)


def is_of_other_code(model: Path) -> bool:
    """Whether this model was trained by other code than today's, or with other versions of its libraries."""
    manifest = read_manifest(model)
    return manifest is not None and manifest.get("code") != training_code()


@pytest.fixture(scope="session")
def demo_run(demo: DemoRun) -> Path:
    """The demo's run folder, with `base/` and `tuned/` in it."""
    return demo.folder
