"""`phi3flow env`: the variables under which Prompt flow's own command works here, for a shell's eval."""

import shlex
import sys

from phi3flow.core.console import Outcome, is_json
from phi3flow.core.errors import BadInput


def env() -> Outcome:
    """Print the environment of Prompt flow's `pf` command, for eval: it holds secrets.

    example: eval "$(phi3flow env)"

    Keys that are set already are kept, so that a second shell can share a store; missing ones are made.
    """
    from secrets import token_urlsafe

    from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
    from phi3flow.core.settings import Settings

    if sys.stdout.isatty() and not is_json():
        raise BadInput("these lines hold secrets and are not for a screen", hint='eval "$(phi3flow env)"')
    settings = Settings.load()
    prepare_home(settings.promptflow_home)
    variables = {
        **environment(
            settings.promptflow_home, settings.encryption_key or new_encryption_key(), settings.batch_workers
        ),
        "PHI3FLOW_ENDPOINT_KEY": settings.endpoint_key or token_urlsafe(32),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    return Outcome({"names": sorted(variables)}, "\n".join(lines))
