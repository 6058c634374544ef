"""The wheel, and environments with it: a bare one, and a copy of that for each set of extras."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from outside import unwatched

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 900
SECONDS = 300
KEPT_OUT = ("PHI3FLOW_", "PF_", "PYTHON", "VIRTUAL_ENV")


class Environment(NamedTuple):
    """A virtual environment with phi3flow and the packages of `extras`."""

    folder: Path
    extras: frozenset[str]

    def command(self, *words: object) -> list[str]:
        return [str(self.folder / "bin" / "phi3flow"), *map(str, words)]

    def run(self, *words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`phi3flow WORDS` as a person would, in the folder `cwd`."""
        return subprocess.run(
            self.command(*words),
            cwd=cwd,
            env=people_s_environment() | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def pip(self, *words: object) -> None:
        done = subprocess.run(
            [self.folder / "bin" / "python", "-m", "pip", "install", "--quiet", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def people_s_environment() -> dict[str, str]:
    return {name: value for name, value in unwatched().items() if not name.startswith(KEPT_OUT)}


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

    It starts as a copy of the bare one (hard links), and then runs the command that phi3flow's own hints name.
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
            environment.pip("--no-deps", "--force-reinstall", wheel)  # its commands name this environment's Python
            environment.pip(*constraints, f"phi3flow[{extras[-1]}]")
        made[extras] = environment
        return environment

    return installed
