"""Commands whose help is plain text, the same in a terminal, in a file and in docs/reference.md."""

import re
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import click
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from phi3flow.core.errors import BadInput, nearest

_SETTING = re.compile(r"\{(\w+)\}")  # in a help text: the value of this setting


class _Plain(click.Command):
    """A docstring is a sentence, `example: ...` lines, which are not wrapped, and more text."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        for paragraph in (self.help or "").split("\n\n"):
            formatter.write_paragraph()
            if paragraph.startswith(("example:", "start with:")):
                formatter.write("".join(f"{line}\n" for line in paragraph.splitlines()))
            else:
                formatter.write_text(paragraph.replace("\n", " "))
        for title, rows in self.sections(ctx):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """The tables of the help: a title, and rows of a name and a sentence."""
        for title, kind in (("Arguments", click.Argument), ("Options", click.Option)):
            rows = [describe(param) for param in visible(self, ctx) if isinstance(param, kind)]
            yield title, [(name, with_settings(text)) for name, text in rows]


class Command(_Plain, TyperCommand):
    """A verb, or a step of one."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        arguments = super().collect_usage_pieces(ctx)[1:]
        needed = [_called(each) for each in self.params if isinstance(each, click.Option) and each.required]
        return [*arguments, *needed, "[OPTIONS]"]


class Group(_Plain, TyperGroup):
    """A command with subcommands; an unknown name is reported with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise BadInput(f"unknown command '{args[0]}'", hint=nearest(args[0], known))
        return super().resolve_command(ctx, args)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        yield "Commands", [(name, sentence_of(command)) for name, command in self.commands.items()]
        yield from super().sections(ctx)


def sentence_of(command: click.Command) -> str:
    return (command.help or "").split("\n\n")[0].replace("\n", " ")


def visible(command: click.Command, ctx: click.Context) -> list[click.Parameter]:
    return [param for param in command.get_params(ctx) if not getattr(param, "hidden", False)]


def describe(param: click.Parameter) -> tuple[str, str]:
    """How a parameter is written, and its sentence with the default; `{runs}` stands for that setting."""
    text = str(getattr(param, "help", "")).removesuffix(".")
    if param.required:
        text += " (required)"
    elif "(default" not in text and _is_shown(param.default):
        default = f"{param.default:g}" if isinstance(param.default, float) else param.default
        text += f" (default: {default})"
    return _called(param), f"{text}."


def restore_argument_help(command: click.Command, function: Callable[..., Any]) -> None:
    """Give arguments their help texts: typer sets them, and click 8.5 then puts None in their place."""
    hints = get_type_hints(function, include_extras=True)
    for param in command.params:
        for info in getattr(hints.get(param.name or ""), "__metadata__", ()):
            if isinstance(info, ArgumentInfo) and isinstance(param, TyperArgument):
                param.help = info.help


def with_settings(text: str) -> str:
    """`{runs}` and the like replaced by the settings that hold in this folder."""
    if not _SETTING.search(text):
        return text
    from phi3flow.core.settings import Settings

    settings = Settings.load()
    return _SETTING.sub(lambda match: str(getattr(settings, match[1])), text)


def _called(param: click.Parameter) -> str:
    value = param.metavar
    if isinstance(param.type, click.Choice) and not value:
        value = "|".join(map(str, param.type.choices))
    if isinstance(param, click.Argument):
        return value or str(param.name).upper()
    names = ", ".join(param.opts)
    return names if getattr(param, "is_flag", False) else f"{names} {value or param.type.name.upper()}"


def _is_shown(default: Any) -> bool:
    return default != "" and isinstance(default, str | int | float) and not isinstance(default, bool)
