"""`phi3flow init`: a commented settings file."""

from pathlib import Path

from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput


def init() -> Outcome:
    """Write a commented phi3flow.toml in this folder.

    example: phi3flow init

    It holds for this folder and those below, unless they have one of their own.
    """
    from phi3flow.core.files import write_text
    from phi3flow.core.settings import CONFIG_FILE, Settings

    Settings.load()  # one above that is broken would make every command fail, with this one or without it
    path = Path(CONFIG_FILE)
    if path.exists():
        raise BadInput(f"{path} exists", hint="edit it, or remove it first")
    write_text(path, _commented_defaults())
    return Outcome({"path": str(path)}, f"wrote {path}; every line in it is a default you may change")


def _commented_defaults() -> str:
    from phi3flow.core.settings import PREFIX, Settings

    lines = [f"# phi3flow's settings; {PREFIX}NAME or a flag overrides a line. Never put secrets here."]
    for name in Settings.public():
        field = Settings.model_fields[name]
        value = field.default.as_posix() if isinstance(field.default, Path) else field.default
        shown = f'"{value}"' if isinstance(value, str) else value
        lines.append(f"# {name} = {shown}  # {field.description}")
    return "\n".join(lines) + "\n"
