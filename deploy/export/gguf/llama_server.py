"""llama.cpp's own HTTP server for one GGUF file, in a process of its own that ends with ours.

`serving` starts this module and sends it a Setup as JSON; it answers with its address on standard output, and
ends when its standard input does.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from phi3flow.core.child_process import last_line, module_command
from phi3flow.core.errors import Phi3flowError
from phi3flow.phi3_contract import Endpoint

SECONDS = 600.0  # for one answer
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Setup:
    """`context` in tokens: above a longrope model's original one llama.cpp takes the long factors."""

    file: str
    context: int
    threads: int
    key: str


@contextmanager
def serving(file: Path, context: int) -> Iterator[Endpoint]:
    """The file behind HTTP, as `llama-server -m FILE -c CONTEXT` serves it.

    Raises Phi3flowError if llama.cpp does not load it.
    """
    setup = Setup(str(file), context, os.cpu_count() or 1, secrets.token_urlsafe())
    with tempfile.NamedTemporaryFile(prefix="llama-", suffix=".log") as log:
        process = subprocess.Popen(
            module_command("deploy.export.gguf.llama_server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Endpoint(_address(process, setup, Path(log.name)), setup.key, "openai", timeout=SECONDS)
        finally:
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)


def _address(process: "subprocess.Popen[bytes]", setup: Setup, log: Path) -> str:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - for the type checker
    process.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
    process.stdin.flush()
    address = process.stdout.readline().decode().strip()
    if not address:
        raise Phi3flowError(
            f"{setup.file}: llama.cpp does not load it: {last_line(log)}", hint="export the model again"
        )
    return f"{address}/v1/chat/completions"


def main() -> None:
    import xllamacpp

    setup = Setup(**json.loads(sys.stdin.readline()))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = setup.file
    parameters.n_ctx = setup.context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = setup.threads
    parameters.api_keys = [setup.key]
    parameters.verbosity = 1  # errors
    parameters.warmup = parameters.fit_params = parameters.ui = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
