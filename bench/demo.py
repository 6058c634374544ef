"""The demo with three seeds: does its result depend on luck?

    make bench-demo

Runs a fresh `phi3flow demo --json` for each seed. Ends with one JSON object: the worst exact match of tuned
on known facts in held-out combinations, against the best of base.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SEEDS = (0, 1, 2)


def run(seed: int, folder: Path) -> dict:
    started = time.monotonic()
    command = [sys.executable, "-m", "phi3flow", "demo", "--json", "--seed", str(seed), "--out", str(folder)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    report = json.loads(finished.stdout)
    slices = report["slices"]
    row = {
        "seed": seed,
        "seconds": round(time.monotonic() - started),
        "n": report["n"],
        "combination": {side: slices["combination"][side] for side in ("base", "tuned")},
        "base_wording": {side: slices["base_wording"][side] for side in ("base", "tuned")},
        "declined": {side: report["declined"][side] for side in ("base", "tuned")},
        "verdict": report["verdict"],
    }
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def main() -> dict:
    with TemporaryDirectory(prefix="demo-", dir=".") as folder:
        rows = [run(seed, Path(folder) / str(seed)) for seed in SEEDS]
    ours = min(row["combination"]["tuned"] for row in rows)
    baseline = max(row["combination"]["base"] for row in rows)
    ratio = round(ours / baseline, 2) if baseline else None
    return {"bench": "demo", "ours": ours, "baseline": baseline, "ratio": ratio, "seeds": rows}


if __name__ == "__main__":
    print(json.dumps(main()))
