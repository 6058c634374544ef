"""The command line: one table of verbs, and the one place that turns errors into exit codes.

Each verb is a function in `phi3flow.app.commands` that returns an `Outcome`. Its module is imported when the
verb is called: `phi3flow --help` imports none of them.
"""

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import click
import typer

from phi3flow import __version__
from phi3flow.app.plain_help import Command, Group, restore_argument_help
from phi3flow.app.renamed import up_to_date
from phi3flow.core.console import INTERRUPTED, Outcome, complain, configure, is_json, is_quiet, say, visible
from phi3flow.core.errors import BadInput, Phi3flowError


class Verb(NamedTuple):
    """A verb's group in the help, its sentence, and its module if that has another name."""

    group: str
    sentence: str
    module: str = ""


VERBS = {
    "prepare": Verb("Data", "Check chats, drop duplicates and split them into train, val and test."),
    "feedback": Verb(
        "Data", "Turn the votes, thumbs and corrections of the chat page into rows to train on."
    ),
    "distill": Verb(
        "Data", "Let a teacher write questions and answers about documents, as chats to train on."
    ),
    "train": Verb(
        "Train", "Fine-tune a model on prepared chats; only assistant tokens count toward the loss."
    ),
    "improve": Verb(
        "Train", "Learn from what people said: show what there is and what it would take; --start does it."
    ),
    "promote": Verb(
        "Train",
        "Serve an improved model in the chat app, if its comparison says promote; --undo takes it back.",
    ),
    "export": Verb(
        "Train",
        "Convert a model for another runtime, and check through that runtime that it answers the same.",
    ),
    "base": Verb("Train", "Fetch a small pretrained chat model, and write it down as a Phi-3."),
    "toy-base": Verb(
        "Train", "Train the demo's tiny base model from scratch; for real work, use a Phi.", "train"
    ),
    "serve": Verb("Serve", "Serve a model folder over HTTP, until Ctrl-C."),
    "verify": Verb("Serve", "Check that an endpoint serves the model that was trained, as it was trained."),
    "connect": Verb("Serve", "Store an endpoint and its key as an encrypted Prompt flow connection."),
    "evaluate": Verb("Judge", "Ask one endpoint every question of a test file, and grade the answers."),
    "compare": Verb("Judge", "Ask base and tuned the same questions: promote, hold, or not enough data?"),
    "compare-answers": Verb("Judge", "The same for answers that were recorded earlier.", "compare"),
    "verdict": Verb(
        "Judge",
        "Decide again by another gate over the same answers, or turn recorded preferences into a verdict.",
        "compare",
    ),
    "up": Verb("Chat", "Chat with a run's tuned model in the browser, until Ctrl-C."),
    "chat": Verb("Chat", "Ask the chat flow one question, or talk to it in the terminal."),
    "azure": Verb("Cloud", "Train, deploy and roll out in Azure Machine Learning."),
    "foundry": Verb("Cloud", "Run the flows, and batch runs of them, in Azure AI Foundry."),
    "migrate": Verb(
        "Cloud", "Leave Prompt flow: prove first that the flows answer the same on Microsoft Agent Framework."
    ),
    "demo": Verb("Start", "Run the whole loop on this machine: data, base, training, serving, verdict."),
    "init": Verb("Start", "Write a commented phi3flow.toml in this folder."),
    "env": Verb(
        "Start", "Print the environment of Prompt flow's `pf` command, for eval: it holds secrets.", "init"
    ),
    "doctor": Verb("Start", "Check this machine: versions, ports, keyring, disk, memory, GPU."),
}
HELP = """From a file of chats to a fine-tuned Phi-3 that answers through Prompt flow.

start with: phi3flow demo
"""
# What a machine refuses: space, rights, a read-only disk. Other errors of the system are bugs.
MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENOTDIR,
    }
)
POSIX = ("fcntl", "resource")  # modules of Python that Windows lacks
WSL = "wsl --install, then docs/install.md inside it"
# The modules that an extra installs.
EXTRAS = {
    "train": "accelerate datasets gguf matplotlib mlflow peft pyarrow tokenizers torch transformers trl",
    "serve": "fastapi httpx prometheus_client tokenizers torch transformers uvicorn",
    "openvino": "nncf openvino openvino_genai openvino_tokenizers optimum",
    "azure": "azure promptflow.azure promptflow.evals promptflow.tools",
    "ui": "markdown_it streamlit",
    "distill": "bs4 py3langid pypdf",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the process's exit code (the table is in docs/reference.md)."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("DO_NOT_TRACK", "true")  # for TRL and MLflow, which knows no "1"
    if "OMP_WAIT_POLICY" not in os.environ:  # a thread that waits soon leaves its core to other work
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    configure()
    _be_verbose(False)
    try:
        return _run(words)
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader left; Python would complain again at exit
        return 1
    except click.UsageError as error:
        return _usage(error)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "", words)
        if not extra:
            raise
        from phi3flow.app.commands.doctor import install_command

        return _explain(Phi3flowError(f"{error.name} is not installed", install_command([extra])))
    except Exception as error:
        if not hasattr(error, "hint"):
            error = trouble_of_the_machine(error)
        return _explain(error)


def trouble_of_the_machine(error: Exception) -> Phi3flowError:
    """A full or read-only disk, missing rights, a locked database in one sentence. Raises any other error."""
    if isinstance(error, OSError) and error.errno in MACHINE:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        told = (error.strerror or type(error).__name__).lower()
        return Phi3flowError(f"{where}{told}", "df -h . shows what the disk has left; or write elsewhere")
    import sqlite3

    cause = getattr(error, "orig", error)  # Prompt flow's store wraps it
    if isinstance(cause, sqlite3.Error):
        return Phi3flowError(
            f"a database cannot be used: {cause}",
            "end other phi3flow and pf commands and try again; a broken one is replaced once it is removed",
        )
    raise error


def program() -> Group:
    """`phi3flow` itself."""
    context = {"max_content_width": 100}
    app = typer.Typer(
        cls=Program, help=HELP, no_args_is_help=True, rich_markup_mode=None, context_settings=context
    )
    app.callback()(lambda: None)
    made = typer.main.get_command(app)
    assert isinstance(made, Group)  # noqa: S101 - by its cls
    made.params[:0] = [_flag("--version", _show_version, "Print the version."), *_loudness()]
    return made


class Program(Group):
    """The verbs of the table, each built when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return command_of(cmd_name)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        width = max(map(len, VERBS))
        for group in dict.fromkeys(verb.group for verb in VERBS.values()):
            verbs = [(name.ljust(width), verb) for name, verb in VERBS.items() if verb.group == group]
            yield group, [(name, verb.sentence) for name, verb in verbs]
        yield from super().sections(ctx)


def command_of(name: str) -> click.Command:
    """A verb of the table. A module with `STEPS`, such as azure, becomes a group of subcommands."""
    module = import_module(f"phi3flow.app.commands.{VERBS[name].module or name.replace('-', '_')}")
    app = typer.Typer(
        cls=Group, help=module.__doc__, no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )
    steps = getattr(module, "STEPS", None)
    if steps:  # a group, even if it has one subcommand
        app.callback()(lambda: None)
    functions = steps or {name: getattr(module, name.replace("-", "_"))}
    for each, function in functions.items():
        app.command(each, cls=Command)(function)
    made = typer.main.get_command(app)
    for each, command in (made.commands if isinstance(made, Group) else {name: made}).items():
        restore_argument_help(command, functions[each])
        command.params += _common()
    return made


def _common() -> list[click.Parameter]:
    """The options that every command has."""
    text = "Print one machine-readable object on stdout."
    return [_flag("--json", lambda: configure(quiet=is_quiet(), json=True), text), *_loudness()]


def _loudness() -> list[click.Parameter]:
    text = "Print no progress on stderr, only errors."
    return [
        _flag("-q/--quiet", lambda: configure(quiet=True, json=is_json()), text),
        _flag("-v/--verbose", _be_verbose, "Log on stderr what phi3flow does, without any chat or key."),
    ]


def _flag(names: str, act: Callable[[], None], text: str) -> click.Parameter:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            act()

    return click.Option(
        names.split("/"), is_flag=True, is_eager=True, expose_value=False, callback=callback, help=text
    )


def _be_verbose(verbose: bool = True) -> None:
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    log = logging.getLogger("phi3flow")
    log.handlers = [shown] if verbose else []
    log.setLevel(logging.DEBUG if verbose else logging.NOTSET)


def _show_version() -> None:
    print(f"phi3flow {__version__}")
    raise click.exceptions.Exit(0)


def _run(words: list[str]) -> int:
    if not all(map(find_spec, POSIX)):
        raise BadInput("phi3flow runs on Linux and macOS only", hint=f"on Windows in WSL: {WSL}")
    result = program().main(up_to_date(words), prog_name="phi3flow", standalone_mode=False)
    if not isinstance(result, Outcome):  # click's own end: --help, or 130 for Ctrl-C
        if result == INTERRUPTED:
            raise KeyboardInterrupt
        return int(result or 0)
    if is_json():
        print(json.dumps(result.data, ensure_ascii=False, default=str))
    elif result.text:
        print(visible(result.text))  # names of fields, slices and files are anybody's
    return result.exit_code


def _explain(error: Exception) -> int:
    """One sentence and its hint on stderr, for any error that carries `hint` and `exit_code`."""
    hint = getattr(error, "hint", "")
    complain(f"error: {error}" + (f"\nhint: {hint}" if hint else ""))
    return int(getattr(error, "exit_code", Phi3flowError.exit_code))


def _usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        complain(error.message)
        return BadInput.exit_code
    path = error.ctx.command_path if error.ctx else "phi3flow"
    return _explain(BadInput(error.format_message().rstrip("."), hint=f"{path} --help"))


def extra_of(missing: str, words: Sequence[str]) -> str:
    """The extra that installs a module, if possible one named like the verb; '' if none does: a bug."""
    names = {missing, missing.partition(".")[0]}
    extras = [extra for extra, modules in EXTRAS.items() if names & set(modules.split())]
    return next((extra for extra in extras if extra in words), extras[0] if extras else "")
