"""`phi3flow up` in a process of its own: the whole stack behind the chat page."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests


@contextmanager
def running_up(run, folder, ports, *options):
    """Started in `folder` on these ports, by their settings' names; the block begins when all is ready."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("phi3flow"), "up", run, *options],
        cwd=folder,
        env={**os.environ, **{f"PHI3FLOW_{name.upper()}_PORT": str(port) for name, port in ports.items()}},
        stderr=subprocess.PIPE,
        text=True,
    )
    printed = ""
    for line in process.stderr:
        printed += line
        if "Ctrl-C stops everything" in line:
            break
    try:
        assert f"http://127.0.0.1:{ports['ui']}" in printed, printed
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def asked_directly(folder, port, question):
    """The answer of the flow on this port, whose key `phi3flow up` left in `folder`."""
    (header,) = folder.glob(f".phi3flow/promptflow/flow-{port}.header")
    assert (header.stat().st_mode & 0o777, header.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    name, _, value = header.read_text().strip().partition(": ")
    url = f"http://127.0.0.1:{port}/score"
    answer = requests.post(url, json={"question": question}, headers={name: value}, timeout=30)
    return answer.json()["answer"]


def interrupt(process):
    """Ctrl-C, which ends it quietly."""
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[1]
    assert (process.returncode, rest) == (130, "interrupted\n")


def listeners(ports):
    """The port that each process listens on, of these, by its id."""
    return {
        connection.pid: connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
    }
