"""One fault in every call that writes: `make bench-azure-faults` in short, each kind of fault in its turn."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "azure_faults.py"


@pytest.mark.slow
def test_after_any_single_fault_a_rerun_ends_where_nothing_had_failed():
    steps = ("provision1", "deploy2", "promote2")
    command = [sys.executable, str(BENCH), "--writes", "--rotate", "--step", *steps]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=280, check=False)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert (found["unanswered"], ran.returncode) == (0, 0)
    assert found["asked"] > 0
    assert len(found["cases"]) == 4
