"""`phi3flow foundry`: flows in Azure AI Foundry or in an Azure ML workspace, and batch runs of them there."""

import argparse
import io
from collections.abc import Callable
from contextlib import redirect_stdout

from phi3flow.app.commands.foundry import asking, catalog, setup
from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

SENTENCE = "Chat, grade and compare in Azure AI Foundry: connections, flows, and batch runs in the cloud."
EXAMPLE = "phi3flow foundry create --plan"
Run = Callable[[argparse.Namespace, Settings], Outcome]
Arguments = Callable[[argparse.ArgumentParser, Settings], None]
PLANNED = {"create", "connect", "upload", "finetune", "delete"}
OF_WORKSPACE = {"create", "finetune"}  # nothing to choose there


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.epilog = "The project is called after PHI3FLOW_AZURE_WORKSPACE, whose endpoints it connects to."
    steps = parser.add_subparsers(metavar="STEP", required=True, help=", ".join(STEPS))
    for name, (sentence, arguments, run_step) in STEPS.items():
        step = steps.add_parser(name, help=sentence, description=sentence)
        arguments(step, settings)
        if name in PLANNED:
            step.add_argument("--plan", action="store_true", help="say what would be done; write nothing")
        if name not in OF_WORKSPACE:
            step.add_argument(
                "--workspace", action="store_true", help="in the Azure ML workspace itself, not in a project"
            )
        step.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print one machine-readable object on stdout",
        )
        step.set_defaults(step=run_step)


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    """The SDKs print what they made; stdout is for data alone."""
    from custom_connections.promptflow_home import enter_home_without_store

    enter_home_without_store(settings)
    step: Run = args.step
    with redirect_stdout(io.StringIO()):
        return step(args, settings)


def _nothing(parser: argparse.ArgumentParser, settings: Settings) -> None:
    pass


STEPS: dict[str, tuple[str, Arguments, Run]] = {
    "create": ("Make the hub and the project, and what they stand on.", _nothing, setup.create),
    "connect": (
        "Store the endpoints as connections that flows recognise.",
        setup.connect_arguments,
        setup.connect,
    ),
    "upload": (
        "Put the flows there, each once, and say where to open them.",
        setup.upload_arguments,
        setup.upload,
    ),
    "chat": ("Ask the uploaded chat flow one question.", asking.chat_arguments, asking.chat),
    "run": (
        "Compare base and tuned on a test file, as a batch run there.",
        asking.run_arguments,
        asking.run,
    ),
    "download": ("Make the report of what the runs answered.", asking.download_arguments, asking.download),
    "finetune": (
        "Fine-tune a Phi mini of the model catalog.",
        catalog.finetune_arguments,
        catalog.finetune,
    ),
    "list": ("Say which connections and flows are there.", _nothing, setup.list_all),
    "delete": ("Archive the flows; delete connections, project and hub.", _nothing, setup.delete),
}
