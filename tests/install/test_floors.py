"""`make check` holds the floors of docs/architecture.md: an import that points up makes it fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi3flow.__main__ import PACKAGES

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code, to spoil."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in ("phi3flow", *PACKAGES):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def lint(tree):
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True, check=False
    )


def test_the_code_as_it_is_keeps_them(tree):
    linted = lint(tree)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (
            "training/scratch.py",
            "from phi3flow.app import cli",
            "training is not allowed to import phi3flow.app",
        ),
        (
            "training/scratch.py",
            "def later():\n    import deploy.azure.train",
            "training is not allowed to import deploy.azure",
        ),
        (
            "phi3flow/core/scratch.py",
            "import phi3flow.chats",
            "phi3flow.core is not allowed to import phi3flow.chats",
        ),
    ],
)
def test_an_import_that_points_up_breaks_them(tree, module, line, broken):
    scratch = tree / module
    scratch.write_text(line + "\n")
    linted = lint(tree)
    scratch.unlink()
    assert linted.returncode == 1
    assert broken in linted.stdout


def test_a_circle_between_modules_breaks_them(tree):
    one, other = tree / "evaluation" / "scratch_one.py", tree / "evaluation" / "scratch_other.py"
    one.write_text("import evaluation.scratch_other\n")
    other.write_text("import evaluation.scratch_one\n")
    linted = lint(tree)
    one.unlink()
    other.unlink()
    assert linted.returncode == 1
    assert "scratch_one" in linted.stdout
