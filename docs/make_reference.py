"""Write docs/reference.md from the code: `make reference`. A test says when the two differ."""

import json
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from phi3flow.app.cli import VERBS, command_of
from phi3flow.app.plain_help import describe, visible
from phi3flow.core.settings import PREFIX, Settings
from training.recipes.recipe import Lora, Recipe, Scratch

HEAD = """# Reference

Made from the code by `make reference`.

Data goes to stdout, progress to stderr. Every command takes these options:

| option | |
|---|---|
"""
CODES = """
| exit code | means |
|---|---|
| 0 | done; for a comparison: promote |
| 1 | failed |
| 2 | bad input, nothing written |
| 3 | hold |
| 4 | not enough data |
| 5 | done, but some lines failed |
| 130 | interrupted |

`phi3flow --install-completion` adds completion to your shell; `phi3flow --version` prints the version.
"""


def reference() -> str:
    groups = dict.fromkeys(verb.group for verb in VERBS.values())
    return "\n".join([HEAD + _common() + CODES, *map(_group, groups), _settings(), _recipe()])


def _group(group: str) -> str:
    verbs = [_verb(name) for name, verb in VERBS.items() if verb.group == group]
    return "\n".join([f"## {group}\n", *verbs])


def _verb(name: str) -> str:
    command = command_of(name)
    if not isinstance(command, click.Group):
        return _section(f"### {name}", command)
    steps = [_section(f"#### {name} {step}", below) for step, below in command.commands.items()]
    return "\n".join([_section(f"### {name}", command), *steps])


def _section(title: str, command: click.Command) -> str:
    """The docstring, its examples as code, and a table of what only this command takes."""
    parts = [_paragraph(paragraph) for paragraph in (command.help or "").strip().split("\n\n")]
    table = _table(_parameters(command))
    return "\n\n".join([title, *parts, *([table] if table else [])]) + "\n"


def _paragraph(text: str) -> str:
    if text.startswith("example:"):
        return "    " + text.removeprefix("example: ")
    return text.replace("\n", " ")


def _parameters(command: click.Command) -> list[click.Parameter]:
    common = {"--help", *(param.opts[-1] for param in command_of("init").params)}
    return [param for param in visible(command, click.Context(command)) if param.opts[-1] not in common]


def _common() -> str:
    return "\n".join(_row(*describe(param)) for param in command_of("init").params) + "\n"


def _table(params: list[click.Parameter]) -> str:
    rows = [_row(*describe(param)) for param in params]
    return "\n".join(["| argument | |", "|---|---|", *rows]) if rows else ""


def _row(name: str, text: str) -> str:
    """Settings stand in a help text as {runs}: here, their defaults."""
    for setting in Settings.public():
        text = text.replace(f"{{{setting}}}", str(Settings.model_fields[setting].default))
    name, text = (part.replace("|", "\\|") for part in (name, text))
    return f"| `{name}` | {text} |"


def _settings() -> str:
    rows = [
        f"| `{name}` | `{field.default}` | {field.description} |"
        for name, field in ((name, Settings.model_fields[name]) for name in Settings.public())
    ]
    head = (
        "## Settings\n\nDefaults < `phi3flow.toml` (`phi3flow init` writes one) < `.env` < "
        f"`{PREFIX}NAME` variables < flags. Secrets come from `.env` or the environment alone: "
        f"`{PREFIX}ENDPOINT_KEY`, the key of the endpoint, and "
        "`PF_ENCRYPTION_KEY`, the key of the connection store.\n"
    )
    return "\n".join([head, "| setting | default | |", "|---|---|---|", *rows, ""])


def _recipe() -> str:
    tables = {"": Recipe, "scratch.": Scratch, "lora.": Lora}
    rows = [
        f"| `{prefix}{name}` | {_default(field)} | {field.description} |"
        for prefix, table in tables.items()
        for name, field in table.__pydantic_fields__.items()
    ]
    return "\n".join(["## Recipe fields", "", "| field | default | |", "|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    """As one would write it in TOML; nothing for what must be given or is off without being named."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(reference(), encoding="utf-8")
