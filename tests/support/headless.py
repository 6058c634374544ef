"""phi3flow as on a headless machine: no keyring, nothing of this shell."""

import os
import subprocess
import sys
from pathlib import Path

PHI3FLOW = Path(sys.executable).with_name("phi3flow")
KEY = "planted-key-91f2"


def bare(folder, **variables):
    return {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}


def phi3flow(folder, *words, stdin=subprocess.DEVNULL, **variables):
    return subprocess.run(
        [PHI3FLOW, *words],
        cwd=folder,
        env=bare(folder, **variables),
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
