"""Virtual environments with phi3flow installed in them, and its commands run as a person runs them."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from outside import unwatched

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
            env=clean_environment() | variables,
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


def clean_environment() -> dict[str, str]:
    """This process's environment without the settings, keys and Python of whoever runs the tests."""
    return {name: value for name, value in unwatched().items() if not name.startswith(KEPT_OUT)}
