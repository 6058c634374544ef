"""Write docs/reference.md from the code: `make reference`. A test says when the two differ."""

import argparse
import json
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from phi3flow.app.cli import VERBS
from phi3flow.core.settings import PREFIX, Settings
from training.recipes.recipe import Lora, Recipe, Scratch

HEAD = """# Reference

Made from the code by `make reference`.

Every verb takes `--json` (one object on stdout) and `--help`. Data goes to stdout, progress to stderr.

| exit code | means |
|---|---|
| 0 | done; for a comparison: promote |
| 1 | failed |
| 2 | bad input, nothing written |
| 3 | hold |
| 4 | not enough data |
| 5 | done, but some lines failed |
| 130 | interrupted |
"""


def reference() -> str:
    return "\n".join([HEAD, *map(_verb, VERBS), _settings(), _recipe()])


def _verb(name: str) -> str:
    module = import_module(f"phi3flow.app.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"phi3flow {name}", add_help=False)
    module.add_arguments(parser, Settings())
    steps = (
        part
        for step, below in _steps(parser)
        for part in (f"### {name} {step}", below.description or "", _arguments(below))
    )
    parts = (f"## {name}", module.SENTENCE, f"    {module.EXAMPLE}", _arguments(parser), *steps)
    return "\n\n".join(part for part in parts if part) + "\n"


def _steps(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    """What stands below a verb such as `azure`, by name."""
    return [
        step
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for step in action.choices.items()
    ]


def _arguments(parser: argparse.ArgumentParser) -> str:
    """A table of all but `--help` and `--json`, which every verb has."""
    rows = [
        f"| `{_called(action)}` | {_unescaped(action.help)} |"
        for action in parser._actions
        if action.dest not in ("help", "json")
    ]
    return "\n".join(["| argument | |", "|---|---|", *rows]) if rows else ""


def _called(action: argparse.Action) -> str:
    value = action.metavar or (
        "" if action.nargs == 0 else "|".join(action.choices or []) or action.dest.upper()
    )
    name = action.option_strings[-1] if action.option_strings else ""
    shown = f"{name} {value}".strip()
    return shown.replace("|", "\\|")


def _unescaped(text: str | None) -> str:
    """What argparse prints: it takes a help text for a format, in which %% is one %."""
    return (text or "").replace("%%", "%")


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
        f"| `{prefix}{spec.name}` | {_default(spec)} | {spec.metadata['help']} |"
        for prefix, table in tables.items()
        for spec in fields(table)
    ]
    return "\n".join(["## Recipe fields", "", "| field | default | |", "|---|---|---|", *rows, ""])


def _default(spec: Field[Any]) -> str:
    """As one would write it in TOML; nothing for what must be given or is off without being named."""
    if spec.default_factory is not MISSING:
        return f"`{spec.default_factory()}`"
    if spec.default is MISSING:
        return "required"
    return "" if spec.default is None else f"`{json.dumps(spec.default)}`"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(reference(), encoding="utf-8")
