"""What both demos are made of: verbs as a person would type them, generated rows, a few questions."""

import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3flow.core.child_process import module_command
from phi3flow.core.console import INTERRUPTED, is_quiet
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.phi3_contract import Endpoint


def run_verb(*arguments: object) -> None:
    """Run one verb in a process of its own, so that no step holds the memory of another.

    Its progress and its error, if any, are already on stderr. Raises Phi3flowError.
    """
    words = [*(["-q"] if is_quiet() else []), *map(str, arguments)]
    # Ctrl-C reaches the child too: let it finish its checkpoint, and learn of it from its exit code.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(
            module_command("phi3flow", *words), stdout=subprocess.DEVNULL, check=False
        ).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise Phi3flowError(
            f"the demo stopped: phi3flow {shlex.join(words)}", hint="the reason is printed above"
        )


def write_rows(files: Mapping[Path, list[dict[str, Any]]]) -> None:
    """Write generated rows once. Raises BadInput where a file holds others."""
    for path, rows in files.items():
        if path.exists() and read_jsonl(path) != rows:
            raise BadInput(f"{path} holds other chats", hint=f"remove {path.parent} or choose another --out")
        if not path.exists():
            write_jsonl(path, rows)


def asked(endpoints: Mapping[str, Endpoint], questions: Sequence[str]) -> dict[str, dict[str, str]]:
    """Every endpoint's answer to each question."""
    return {
        question: {
            name: endpoint.complete([{"role": "user", "content": question}])
            for name, endpoint in endpoints.items()
        }
        for question in questions
    }
