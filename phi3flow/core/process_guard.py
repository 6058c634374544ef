"""Stops process groups when the process that started them is gone, even after kill -9.

The guard is this file, run as a script, so it imports nothing of phi3flow. It reads a pipe to which only the
parent can write: every line is the id of a group, and the end of input means that the parent is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 5.0


class Guard:
    """The parent's side: `watch` a group; `dismiss` the guard once all groups have stopped."""

    def __init__(self) -> None:
        reading, self._pipe = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            env={name: value for name, value in os.environ.items() if not name.endswith("_KEY")},
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)

    def watch(self, group: int) -> None:
        os.write(self._pipe, f"{group}\n".encode())

    def dismiss(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._pipe)


def stop_groups_at_end_of_input() -> None:
    groups = [int(line) for line in sys.stdin]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        if number == signal.SIGTERM:
            time.sleep(GRACE_SECONDS)


if __name__ == "__main__":
    stop_groups_at_end_of_input()
