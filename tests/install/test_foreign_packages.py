"""Somebody else's folder called `training` or `evaluation` breaks nothing, or is named in one sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import phi3flow
from phi3flow.__main__ import PACKAGES

PHI3FLOW = Path(sys.executable).with_name("phi3flow")
UNSAFE = [sys.executable, "-m", "phi3flow"]
SAFE = [sys.executable, "-P", "-m", "phi3flow"]


@pytest.fixture(params=["training", "evaluation", "flows"])
def theirs(request, tmp_path):
    """The current folder holds a package with one of our names."""
    folder = tmp_path / request.param
    folder.mkdir()
    (folder / "__init__.py").write_text("theirs = True\n")
    return folder


def version(command, theirs, **environment):
    return subprocess.run(
        [*command, "--version"],
        cwd=theirs.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_and_a_safe_path_look_past_it(theirs):
    for command in ([PHI3FLOW], SAFE):
        asked = version(command, theirs)
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.startswith("phi3flow ")


def test_python_m_and_pythonpath_name_it_and_what_to_do(theirs):
    for command, environment in ((UNSAFE, {}), (SAFE, {"PYTHONPATH": "."})):
        asked = version(command, theirs, **environment)
        assert asked.returncode == 2
        error, hint = asked.stderr.splitlines()
        assert error == f"error: {theirs} hides phi3flow's own package '{theirs.name}'"
        assert "python -P -m phi3flow" in hint and "PYTHONPATH" in hint


def test_every_python_that_phi3flow_starts_has_a_safe_path():
    root = Path(phi3flow.__file__).parents[1]
    sources = [path for package in ("phi3flow", *PACKAGES) for path in (root / package).rglob("*.py")]
    unsafe = [path for path in sources if re.search(r'sys\.executable,\s*"-m"', path.read_text())]
    assert len(sources) > len(PACKAGES)
    assert unsafe == []
