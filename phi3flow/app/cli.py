"""The command line: a table from verb to module, and the one place that turns errors into exit codes."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from phi3flow import __version__
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput, Phi3flowError, nearest
from phi3flow.core.settings import Settings

# In the order a user meets them. Each is a module of phi3flow.app.commands with SENTENCE, EXAMPLE,
# add_arguments(parser, settings) and run(args, settings) -> Outcome.
VERBS = (
    "demo",
    "init",
    "prepare",
    "base",
    "train",
    "export",
    "serve",
    "verify",
    "env",
    "connect",
    "chat",
    "evaluate",
    "compare",
    "verdict",
    "up",
    "azure",
    "foundry",
    "doctor",
)
INTERRUPTED = 130
# What is imported inside the verbs, and the extra that brings it.
EXTRA_OF = {
    "azure": "azure",
    "azure.ai": "azure",
    "azure.identity": "azure",
    "azure.mgmt": "azure",
    "azure.mgmt.resource": "azure",
    "datasets": "train",
    "datasketch": "train",
    "fastapi": "serve",
    "nncf": "openvino",
    "openvino": "openvino",
    "openvino_genai": "openvino",
    "streamlit": "ui",
    "tokenizers": "serve",
    "torch": "train",
    "transformers": "train",
    "trl": "train",
    "uvicorn": "serve",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the process's exit code (the table is in docs/reference.md)."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault(
        "DO_NOT_TRACK", "true"
    )  # TRL and MLflow would report their use; MLflow knows no "1"
    try:
        return _print(*_run(words))
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader left; Python would complain again at exit
        return 1
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        return _explain(Phi3flowError(f"{error.name} is not installed", _install(EXTRA_OF[error.name])))
    except Exception as error:
        if not hasattr(error, "hint"):
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One sentence and its hint on stderr, for any error that carries `hint` and `exit_code`."""
    hint = getattr(error, "hint", "")
    say(f"error: {error}" + (f"\nhint: {hint}" if hint else ""))
    return int(getattr(error, "exit_code", Phi3flowError.exit_code))


def _install(extra: str) -> str:
    return f"pip install 'phi3flow[{extra}]', or make install for everything"


def _run(words: list[str]) -> tuple[Outcome, bool]:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb and words[0] == verb and verb not in VERBS:
        raise BadInput(f"unknown verb '{verb}'", hint=nearest(verb, VERBS))
    parser = _parser(Settings.load())
    if not words:
        say(parser.format_help().rstrip())
        return Outcome(exit_code=BadInput.exit_code), False
    args = parser.parse_args(words)
    return args.run(args), args.json


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phi3flow",
        description="From a file of chats to a fine-tuned Phi-3 that answers through Prompt flow.",
        epilog="Start with: phi3flow demo",
    )
    parser.add_argument("--version", action="version", version=f"phi3flow {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in VERBS:
        module = import_module(f"phi3flow.app.commands.{name}")
        verb = verbs.add_parser(
            name,
            help=module.SENTENCE,
            description=f"{module.SENTENCE}\n\nexample: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb, settings)
        verb.add_argument("--json", action="store_true", help="print one machine-readable object on stdout")
        verb.set_defaults(run=lambda args, module=module: module.run(args, settings))
    return parser


def _print(outcome: Outcome, as_json: bool) -> int:
    if as_json:
        print(json.dumps(outcome.data, ensure_ascii=False, default=str))
    elif outcome.text:
        print(outcome.text)
    return outcome.exit_code
