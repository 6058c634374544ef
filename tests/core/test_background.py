"""A job in the background: it outlives who started it, has no key of ours, and tells how it ended."""

import os
import signal
import subprocess
import sys

import pytest
from waiting import until

from phi3flow.core.background import job_in, last_lines, start, stop
from phi3flow.core.errors import BadInput

WORK = """
import os, sys, time
print("keys", repr(os.environ.get("PHI3FLOW_FLOW_KEY")), flush=True)
try:
    time.sleep(float(sys.argv[1]))
except KeyboardInterrupt:
    print("saved a checkpoint", flush=True)
    sys.exit(130)
sys.exit(7)
"""
STARTER = """
import sys
from pathlib import Path
from phi3flow.core.background import start
start(Path(sys.argv[1]), sys.argv[2:])
"""
LONG = 600


def work(seconds):
    return [sys.executable, "-c", WORK, str(seconds)]


def ended(folder):
    until(lambda: not job_in(folder).is_running, 60)
    return job_in(folder)


def test_it_outlives_who_started_it_and_tells_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3FLOW_FLOW_KEY", "planted")
    subprocess.run([sys.executable, "-c", STARTER, tmp_path, *work(3)], check=True)
    job = job_in(tmp_path)
    assert job.is_running and job.exit_code is None and job.command == work(3)
    job = ended(tmp_path)
    assert job.exit_code == 7 and job.ended >= job.born
    assert last_lines(tmp_path, 5) == ["keys ''"]


def test_one_at_a_time_and_stop_is_a_ctrl_c(tmp_path):
    made = start(tmp_path, work(LONG))
    until(lambda: last_lines(tmp_path, 1) == ["keys ''"], 60)
    with pytest.raises(BadInput, match=f"a job runs there already, process {made.pid}"):
        start(tmp_path, work(LONG))
    stop(tmp_path)
    assert ended(tmp_path).exit_code == 130 and last_lines(tmp_path, 1) == ["saved a checkpoint"]
    stop(tmp_path)  # nothing runs
    start(tmp_path, work(0))
    assert ended(tmp_path).exit_code == 7 and last_lines(tmp_path, 9) == ["keys ''"]


def test_a_killed_one_does_not_run_and_a_broken_file_is_no_job(tmp_path):
    assert job_in(tmp_path) is None and last_lines(tmp_path, 3) == []
    job = start(tmp_path, work(LONG))
    os.killpg(job.pid, signal.SIGKILL)
    assert ended(tmp_path).exit_code is None
    (tmp_path / "job.json").write_text("{")
    assert job_in(tmp_path) is None
