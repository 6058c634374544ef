"""The Python of Prompt flow's image in the cloud, where this machine has it."""

import shutil
import subprocess
from pathlib import Path


def _runs(python: str) -> bool:
    """A version manager has a `python3.9` for versions that are not chosen here, too."""
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


def python_3_9() -> str:
    """The path of a Python 3.9 that runs; empty where there is none."""
    managed = sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python"))
    found = [*map(str, managed), *filter(None, [shutil.which("python3.9")])]
    return next(filter(_runs, found), "")
