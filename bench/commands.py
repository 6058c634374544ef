"""The commands of phi3flow as a person types them, for benches that go through the whole loop."""

import json
import subprocess
import sys

from phi3flow.core.child_process import module_command

# Of compare: promote, hold, not enough data. A bench has its own verdict.
JUDGED = frozenset({0, 3, 4})


def run(project, *words):
    """One command in the project's folder. Returns its JSON; ends the bench where it fails."""
    print("phi3flow", *words, file=sys.stderr, flush=True)
    command = module_command("phi3flow", *map(str, words), "--json")
    ran = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode not in (JUDGED if words[0] == "compare" else {0}):
        raise SystemExit(f"phi3flow {words[0]}: exit code {ran.returncode}")
    return json.loads(ran.stdout)
