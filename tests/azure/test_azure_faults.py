"""One fault in every call of provision, train, deploy and promote, each kind in its turn.

`make bench-azure-faults` is the whole of it: every kind in every call, and in each repetition of a poll.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BENCH = HERE.parents[1] / "bench" / "azure_faults.py"
KINDS = {"429", "500", "drop", "kill"}
CALLS = 100  # at least; which there are, the SDKs decide


@pytest.mark.slow  # three minutes of a laptop's time
def test_after_any_single_fault_a_rerun_ends_where_nothing_had_failed():
    command = [sys.executable, str(BENCH), "--once"]
    path = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE / 'support'}"}
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=False, env=path)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert (found["unanswered"], ran.returncode) == (0, 0)
    assert found["asked"] > 0
    assert set(found["cases"]) == KINDS and sum(found["cases"].values()) >= CALLS
