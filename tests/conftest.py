"""One isolated environment for every test, and one run of the demo for those that need a trained model."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from outside import PROXIES, nobody_leaves, unwatched

from phi3flow.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DEMO_SECONDS = 900


class DemoRun(NamedTuple):
    """A finished `phi3flow demo --json`: its folder, what it printed, and its exit code."""

    folder: Path
    report: dict[str, Any]
    exit_code: int


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, key or proxy of the person who runs the tests reaches them."""
    for name in (*(PREFIX + spec.name.upper() for spec in fields(Settings)), "PF_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a process under `pytest -n`: a file, the users of the trained model, those of the cloud."""
    for item in items:
        shares_model = "demo" in getattr(item, "fixturenames", ())
        group = "demo" if shares_model else "azure" if item.path.parent.name == "azure" else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def demo() -> DemoRun:
    """The demo itself, in `runs/test-demo`: trained once for a checkout, and compared anew each session.

    None of its processes may ask another machine for anything.
    """
    folder = ROOT / "runs" / "test-demo"
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


@pytest.fixture(scope="session")
def demo_run(demo: DemoRun) -> Path:
    """The demo's run folder, with `base/` and `tuned/` in it."""
    return demo.folder
