"""The wheel, and environments with it: a bare one, and a copy of that for each set of extras."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import INSTALL_SECONDS, Environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git tracks or would take, and of nothing else."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def wheel(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of those files."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, "."],
        cwd=tracked,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("phi3flow-*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """`installed("serve", "ui")`: an environment with these extras, made once.

    It starts as a copy of the bare one (hard links) and runs the command that phi3flow's hints name.
    """
    made: dict[tuple[str, ...], Environment] = {}
    place = tmp_path_factory.mktemp("environments")
    constraints = ("--constraint", ROOT / "constraints.txt")

    def installed(*extras: str) -> Environment:
        if extras in made:
            return made[extras]
        environment = Environment(place / ("-".join(extras) or "bare"), frozenset(extras))
        if not extras:
            subprocess.run([sys.executable, "-m", "venv", environment.folder], check=True)
            environment.pip(*constraints, wheel)
        else:
            shutil.copytree(
                installed(*extras[:-1]).folder, environment.folder, symlinks=True, copy_function=os.link
            )
            environment.pip(
                "--no-deps", "--force-reinstall", wheel
            )  # its commands name this environment's Python
            environment.pip(*constraints, f"phi3flow[{extras[-1]}]")
        made[extras] = environment
        return environment

    return installed
