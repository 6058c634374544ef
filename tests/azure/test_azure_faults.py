"""One fault in every call of provision, train, deploy and promote that writes, each kind in its turn.

`make bench-azure-faults` is the whole of it: reads too, and every kind in every call.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "azure_faults.py"
KINDS = {"429", "500", "drop", "kill"}
WRITES = 40  # at least; which calls there are, the SDKs decide


@pytest.mark.slow  # two minutes of a laptop's time; .ci/run asks for it by name
def test_after_any_single_fault_a_rerun_ends_where_nothing_had_failed():
    command = [sys.executable, str(BENCH), "--writes", "--rotate"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=False)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert (found["unanswered"], ran.returncode) == (0, 0)
    assert found["asked"] > 0
    assert set(found["cases"]) == KINDS and sum(found["cases"].values()) >= WRITES
