"""`phi3flow init` and `env`: the settings of this folder, and the environment of Prompt flow's `pf`."""

import shlex
import sys
from pathlib import Path
from secrets import token_urlsafe

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from phi3flow.core.console import Outcome, is_json
from phi3flow.core.errors import BadInput
from phi3flow.core.files import write_text
from phi3flow.core.settings import CONFIG_FILE, PREFIX, Settings


def init() -> Outcome:
    """Write a commented phi3flow.toml in this folder.

    example: phi3flow init

    It holds for this folder and those below, unless they have one of their own.
    """
    Settings.load()  # one above that is broken would make every command fail, with this one or without it
    path = Path(CONFIG_FILE)
    if path.exists():
        raise BadInput(f"{path} exists", hint="edit it, or remove it first")
    write_text(path, _commented_defaults())
    return Outcome({"path": str(path)}, f"wrote {path}; every line in it is a default you may change")


def env() -> Outcome:
    """Print the environment of Prompt flow's `pf` command, for eval: it holds secrets.

    example: eval "$(phi3flow env)"

    Keys that are set already are kept, so that a second shell can share a store; missing ones are made.
    """
    if sys.stdout.isatty() and not is_json():
        raise BadInput("these lines hold secrets and are not for a screen", hint='eval "$(phi3flow env)"')
    settings = Settings.load()
    prepare_home(settings.promptflow_home)
    key = settings.encryption_key or new_encryption_key()
    variables = environment(settings.promptflow_home, key, settings.batch_workers)
    variables["PHI3FLOW_ENDPOINT_KEY"] = settings.endpoint_key or token_urlsafe(32)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    return Outcome({"names": sorted(variables)}, "\n".join(lines))


def _commented_defaults() -> str:
    lines = [f"# phi3flow's settings; {PREFIX}NAME or a flag overrides a line. Never put secrets here."]
    for name in Settings.public():
        field = Settings.model_fields[name]
        value = field.default.as_posix() if isinstance(field.default, Path) else field.default
        shown = f'"{value}"' if isinstance(value, str) else value
        lines.append(f"# {name} = {shown}  # {field.description}")
    return "\n".join(lines) + "\n"
