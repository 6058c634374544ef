"""`make clean` keeps what a person made; `make clean-runs` asks first."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEIGHTS = b"0" * 300_000


@pytest.fixture
def checkout(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("runs/mine/tuned/model.safetensors", ".phi3flow/promptflow/pf.sqlite", ".venv/bin/python"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(WEIGHTS)
    (tmp_path / "training" / "__pycache__").mkdir(parents=True)
    return tmp_path


def make(checkout, target, answer=""):
    """As a person starts it: what `make test` tells its own children would make it talk of folders."""
    of_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return subprocess.run(
        ["make", target],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if name not in of_make},
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


def left(checkout):
    return {path.name for path in checkout.iterdir()} - {"Makefile", "training"}


def test_clean_removes_packages_and_caches_only(checkout):
    assert make(checkout, "clean").returncode == 0
    assert left(checkout) == {"runs", ".phi3flow"}
    assert not (checkout / "training" / "__pycache__").exists()


@pytest.mark.parametrize("answer", ["", "\n", "no\n", "y\n"])
def test_clean_runs_names_what_would_go_and_keeps_it_unless_told_yes(checkout, answer):
    asked = make(checkout, "clean-runs", answer)
    assert asked.returncode != 0
    sizes = dict(line.split("\t")[::-1] for line in asked.stdout.splitlines() if "\t" in line)
    assert {"runs", "runs/mine", ".phi3flow"} <= set(sizes)
    assert all(size[0] in "23" for size in sizes.values()), "300 000 bytes each, as du rounds them"
    assert asked.stdout.endswith("kept\n")
    assert left(checkout) == {"runs", ".phi3flow", ".venv"}


def test_clean_runs_removes_them_after_yes(checkout):
    assert make(checkout, "clean-runs", "yes\n").returncode == 0
    assert left(checkout) == {".venv"}
    again = make(checkout, "clean-runs")
    assert (again.returncode, again.stdout) == (0, "nothing to remove: no runs/ and no .phi3flow/\n")
