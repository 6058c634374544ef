"""`phi3flow` in processes of their own that start at once: forks of one that has imported everything.

A process that trains spends its first six seconds on imports, and a test that kills one needs many. The
command line is the real one, and so are the process, its exit code and its signals.
"""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from typing import NamedTuple

SECONDS = 120
IMPORTED = (
    "alembic.command",
    "datasets",
    "matplotlib.backends.backend_agg",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "peft",
    "training.loop.run",
    "training.tracking.mlflow_chat",
    "transformers.models.phi3.modeling_phi3",
)


class Finished(NamedTuple):
    code: int
    out: str
    said: str  # on stderr


class Started:
    """A running command: `pid` takes signals, `wait()` its end."""

    def __init__(self, pid, source, folder):
        self.pid, self._source, self._folder = pid, source, folder
        self._code = None

    def wait(self):
        """Its end; what takes longer than SECONDS is killed by SIGALRM."""
        if self._code is None:
            self._code = int(self._source.readline())
        out, said = ((self._folder / name).read_text() for name in ("stdout", "stderr"))
        return Finished(self._code, out, said)

    @property
    def running(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class WarmCommand:
    """`with WarmCommand(folder, environment) as command`; one command at a time runs in `folder`."""

    def __init__(self, folder, environment=None):
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()

    def start(self, *words):
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        return Started(int(self._process.stdout.readline()), self._process.stdout, self.folder)

    def run(self, *words):
        return self.start(*words).wait()


def serve():
    """Fork for each line of stdin; say the child's pid, and when it is gone its exit code."""
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            command(json.loads(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def command(words):
    """In the child, never to return."""
    from phi3flow.app.cli import main

    signal.alarm(SECONDS)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(opened, descriptor)
    sys.argv = ["phi3flow", *words]
    code = 70
    try:
        code = main(words)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
