"""`phi3flow train` on two ranks: two CPU processes, started with what torchrun would set."""

import json
import os
import subprocess
import sys
from pathlib import Path

from chromium import free_ports

RANKS = 2
SECONDS = 400


def start(project, folders, recipe="ranks.toml", command=("-m", "phi3flow")):
    """`phi3flow train --out tuned --json` on every rank, in its folder."""
    return started([*command, *train(project, recipe)], folders)


def train(project, recipe):
    return ["train", "--data", project / "data", "--recipe", project / recipe, "--out", "tuned", "--json"]


def under_torchrun(project, folder, recipe="ranks.toml"):
    """The same on RANKS ranks in one folder, by torch's own launcher; ended."""
    programs = Path(sys.executable).parent
    (port,) = free_ports(1)
    launcher = [programs / "torchrun", "--nproc-per-node", str(RANKS), "--master-port", str(port)]
    return subprocess.run(
        [*launcher, "--no-python", "phi3flow", *train(project, recipe)],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def started(words, folders):
    """Python with `words` on every rank, in its folder."""
    (port,) = free_ports(1)
    shared = {"WORLD_SIZE": str(len(folders)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]


def finished(processes):
    """What each rank wrote to stdout as JSON, and to stderr."""
    ended = [process.communicate(timeout=SECONDS) for process in processes]
    assert {process.returncode for process in processes} == {0}, [said for _, said in ended]
    return [json.loads(printed) for printed, _ in ended], [said for _, said in ended]
