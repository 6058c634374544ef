"""`phi3flow env`: the variables under which Prompt flow's own command works here, for a shell's eval."""

import argparse
import shlex
import sys

from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

SENTENCE = "Print the environment for Prompt flow's `pf` command, for eval only: it contains secrets."
EXAMPLE = 'eval "$(phi3flow env)"'


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    """No flags: like ssh-agent's, the output is for a POSIX shell's eval, never for a screen or a file."""


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    """Keys already set are kept, so that eval in a second shell can share a store; missing ones are made."""
    from secrets import token_urlsafe

    from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home

    if sys.stdout.isatty() and not args.json:
        raise BadInput("these lines contain secrets and are not for a screen", hint=EXAMPLE)
    prepare_home(settings.promptflow_home)
    variables = {
        **environment(
            settings.promptflow_home, settings.encryption_key or new_encryption_key(), settings.batch_workers
        ),
        "PHI3FLOW_ENDPOINT_KEY": settings.endpoint_key or token_urlsafe(32),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    return Outcome({"names": sorted(variables)}, "\n".join(lines))
