"""A verb as a person would type it, in a process of its own."""

import os
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping

from phi3flow.core.child_process import module_command
from phi3flow.core.console import INTERRUPTED, is_quiet
from phi3flow.core.errors import Phi3flowError


def run_verb(
    *arguments: object, done: Collection[int] = (0,), environment: Mapping[str, str] | None = None
) -> int:
    """Run one verb to its end, so that no step holds the memory of another. Returns its exit code.

    Its progress and its error, if any, are already on stderr. `environment` is added to this one's. Raises
    Phi3flowError for an exit code that is not among `done`.
    """
    words = [*(["-q"] if is_quiet() else []), *map(str, arguments)]
    # Ctrl-C reaches the child too: let it finish its checkpoint. A child that is just starting may miss it.
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        code = subprocess.run(
            module_command("phi3flow", *words),
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code == INTERRUPTED or interrupts:
        raise KeyboardInterrupt
    if code not in done:
        raise Phi3flowError(f"stopped at: phi3flow {shlex.join(words)}", hint="the reason is printed above")
    return code
