"""What a command line means, without running it."""

from collections.abc import Sequence
from typing import Any

import click

from phi3flow.app.cli import program


def parse(words: Sequence[str]) -> dict[str, Any]:
    """The arguments with which `words` would call a verb's function. Raises click.UsageError and BadInput."""
    command: click.Command = program()
    rest, context = list(words), None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    return command.make_context(name, rest, parent=context).params
