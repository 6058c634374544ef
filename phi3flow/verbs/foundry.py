"""`phi3flow foundry`: flows in Azure AI Foundry or in an Azure ML workspace, and batch runs of them there."""

import argparse
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3flow.console import Outcome
from phi3flow.errors import BadInput
from phi3flow.settings import Settings
from phi3flow.verbs.connect import asked_key, endpoint_arguments

if TYPE_CHECKING:
    from deploy.foundry.cloud_comparison import CloudAnswers
    from deploy.foundry.target import Target
    from phi3flow.phi3_contract import Endpoint

SENTENCE = "Chat, grade and compare in Azure AI Foundry: connections, flows, and batch runs in the cloud."
EXAMPLE = "phi3flow foundry create --plan"
CONNECTIONS = ("phi3-base", "phi3-tuned")
FAILED_LINES = 5
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


def _target(args: argparse.Namespace, settings: Settings) -> "Target":
    from deploy.foundry.target import target_of

    return target_of(settings, workspace=args.workspace)


def _nothing(parser: argparse.ArgumentParser, settings: Settings) -> None:
    pass


def _create(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.plan import carry_out
    from deploy.foundry.problems import explained
    from deploy.foundry.project import project_steps
    from deploy.foundry.target import target_of

    target = target_of(settings, workspace=False)
    with explained("before any write"):
        steps = project_steps(target.endpoints)
    return _planned(carry_out(steps, plan=args.plan), args.plan, "phi3flow foundry connect")


def _planned(actions: list[Any], plan: bool, following: str, **data: Any) -> Outcome:
    from deploy.azure.plan import as_data

    lines = [str(action) for action in actions]
    lines += [f"{name}: {url}" for name, url in data.get("urls", {}).items()]
    lines.append("a plan: nothing was written" if plan else f"next: {following}")
    return Outcome({"plan": plan, "actions": as_data(actions), **data}, "\n".join(lines))


def _connect_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which connections (default {' and '.join(CONNECTIONS)})"
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="any endpoint's full scoring URL; default: the one that phi3flow azure deploy made for NAME",
    )
    endpoint_arguments(parser)
    parser.epilog = "The key of --endpoint comes from PHI3FLOW_ENDPOINT_KEY or a prompt."


def _connect(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.plan import carry_out
    from deploy.foundry.connections import FlowConnection

    names = args.names or list(CONNECTIONS)
    if args.endpoint and len(names) != 1:
        raise BadInput("--endpoint belongs to one NAME", "phi3flow foundry connect phi3-tuned --endpoint URL")
    target = _target(args, settings)
    target.require()
    wanted = {name: _endpoint(name, target, args, settings) for name in names}
    steps = [FlowConnection(target.cloud, name, endpoint) for name, endpoint in wanted.items()]
    actions = carry_out(steps, plan=args.plan)
    if not args.plan:
        _try(target, names)
    return _planned(actions, args.plan, "phi3flow foundry upload")


def _endpoint(name: str, target: "Target", args: argparse.Namespace, settings: Settings) -> "Endpoint":
    from deploy.azure.serving import ask_at
    from deploy.foundry.problems import explained
    from phi3flow.phi3_contract import Endpoint

    given = {field: getattr(args, field) for field in ("contract", "model", "deployment", "timeout")}
    given = {field: value for field, value in given.items() if value is not None}
    if args.endpoint:
        return replace(Endpoint(args.endpoint, settings.endpoint_key or asked_key(name)), **given)
    cloud = target.endpoints
    with explained(f"endpoint of {name}"):
        found = ask_at(cloud, cloud.names.endpoint(name), given.pop("deployment", None))
    return replace(found, **given)


def _try(target: "Target", names: list[str]) -> None:
    """One short question through each connection, as it reads back."""
    from deploy.foundry.connections import as_flows_read_it
    from evaluation.batch import PREFLIGHT
    from phi3flow.errors import Phi3flowError
    from phi3flow.phi3_contract import EndpointError, Sampling

    for name in names:
        try:
            as_flows_read_it(target.cloud, name).complete(PREFLIGHT, Sampling(max_tokens=1))
        except EndpointError as error:
            raise Phi3flowError(f"connection {name} is stored, but {error}", error.hint) from None


def _upload_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument(
        "flows", nargs="*", metavar="FLOW", help="chat, grade, compare (default: all three) or flow folders"
    )


def _upload(args: argparse.Namespace, settings: Settings) -> Outcome:
    from contextlib import ExitStack

    from deploy.azure.plan import carry_out
    from deploy.foundry.connections import as_flows_read_it
    from deploy.foundry.flows import FlowUpload, resolved
    from deploy.foundry.problems import explained
    from phi3flow.flow_folder import FLOWS, connections_of

    with ExitStack() as stack:
        flows = [stack.enter_context(resolved(asked)) for asked in args.flows or FLOWS]
        target = _target(args, settings)
        urls: dict[str, str] = {}
        with explained("the connections of the flows"):
            target.require()
            for name in sorted({name for flow in flows for name in connections_of(flow.folder)}):
                as_flows_read_it(target.cloud, name)
        actions = carry_out([FlowUpload(target, flow, urls=urls) for flow in flows], plan=args.plan)
    return _planned(actions, args.plan, 'phi3flow foundry chat "QUESTION"', urls=urls)


def _out(parser: argparse.ArgumentParser, settings: Settings) -> None:
    default = settings.runs / "azure" / "comparison"
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"answers and report (default {default})"
    )


def _run_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="test.jsonl of prepare")
    _out(parser, settings)


def _run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.cloud_comparison import run_in_cloud
    from deploy.foundry.problems import explained

    target = _target(args, settings)
    with explained("the run in the cloud"):
        answers = run_in_cloud(target, args.data, args.out)
    return _told(answers, args.out)


def _told(answers: "CloudAnswers", out: Path) -> Outcome:
    from deploy.foundry.cloud_comparison import failures

    data = {"runs": answers.runs, "expected": len(answers.sides["base"]), "failed": answers.failed}
    if answers.failed:
        text = f"{failures(answers)}\nnext: the same command asks them again"
        return Outcome(data, text, FAILED_LINES)
    text = f"all {data['expected']} lines are answered\nnext: phi3flow foundry download --out {out}"
    return Outcome(data, text)


def _download_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    _out(parser, settings)
    parser.add_argument(
        "--gate", type=Path, metavar="FILE", help="what a promotion takes (default: packaged)"
    )


def _download(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.cloud_comparison import answers_in_cloud
    from deploy.foundry.problems import explained
    from deploy.foundry.results import report
    from evaluation.compare import Options
    from evaluation.gate import load_gate
    from evaluation.joined import say_failures
    from evaluation.report import summary_table
    from evaluation.text_metrics import default_backend
    from evaluation.verdict import exit_code
    from phi3flow.lineage import new_output

    options = Options(load_gate(args.gate), settings.batch_workers, text_metrics=default_backend())
    new_output(args.out / "report.json")
    target = _target(args, settings)
    with explained("the run in the cloud"):
        answers = answers_in_cloud(target, args.out)
    for side, records in answers.sides.items():
        say_failures(side, records)
    made = report(answers, target.name, args.out, options)
    text = f"{summary_table(made)}\n{args.out / 'report.html'}"
    return Outcome(made.as_dict(), text, exit_code(made.verdict, made.failed))


def _chat_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--system", metavar="TEXT", default="", help="system prompt")


def _chat(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.chat import ask
    from deploy.foundry.problems import explained

    target = _target(args, settings)
    with explained("the question"):
        answer = ask(target, args.question, args.system)
    return Outcome({"question": args.question, "answer": answer}, answer)


def _finetune_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what phi3flow prepare wrote")
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME:VERSION",
        help="of the catalog: Phi-3-mini-4k-instruct:11",
    )
    parser.add_argument("--learning-rate", type=float, default=5e-6, metavar="X", help="default 5e-6")
    parser.add_argument("--scheduler", metavar="NAME", default="cosine", help="lr_scheduler_type (cosine)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--profile", choices=("gpu", "cpu"), default="gpu", help="the cluster it runs on")
    default = settings.runs / "azure"
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"the run's manifest (default {default})"
    )


def _finetune(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.azure.session import connect
    from deploy.azure.sizes import profile
    from deploy.foundry.catalog import SCHEDULERS, CatalogTraining, finetune
    from deploy.foundry.problems import explained
    from phi3flow.errors import nearest

    if args.scheduler not in SCHEDULERS:
        raise BadInput(f"--scheduler: unknown '{args.scheduler}'", nearest(args.scheduler, SCHEDULERS))
    asked = CatalogTraining(
        args.data, args.model, args.learning_rate, args.scheduler, args.epochs, profile(args.profile)
    )
    asked.asset  # noqa: B018 - says what is wrong with --model before anybody logs in
    with explained("fine-tuning from the catalog"):
        actions, job = finetune(connect(settings), asked, args.out, plan=args.plan)
    return _planned(actions, args.plan, f"phi3flow azure deploy --out {args.out}", job=job)


def _list(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.overview import as_data, as_table, listing
    from deploy.foundry.problems import explained

    target = _target(args, settings)
    with explained("list"):
        found = listing(target)
    return Outcome({"target": target.name, "found": as_data(found)}, as_table(found))


def _delete(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.foundry.overview import delete
    from deploy.foundry.problems import explained

    target = _target(args, settings)
    with explained("delete"):
        removals = delete(target, plan=args.plan)
    left = [f"{one.kind} {one.name}" for one in removals if one.do == "keep"]
    lines = [*map(str, removals), "a plan: nothing was deleted" if args.plan else f"left: {len(left)}"]
    data = {"plan": args.plan, "removals": [one._asdict() for one in removals], "left": left}
    return Outcome(data, "\n".join(lines))


STEPS: dict[str, tuple[str, Arguments, Run]] = {
    "create": ("Make the hub and the project, and what they stand on.", _nothing, _create),
    "connect": ("Store the endpoints as connections that flows recognise.", _connect_arguments, _connect),
    "upload": ("Put the flows there, each once, and say where to open them.", _upload_arguments, _upload),
    "run": ("Compare base and tuned on a test file, as a batch run there.", _run_arguments, _run),
    "download": ("Make the report of what the runs answered.", _download_arguments, _download),
    "chat": ("Ask the uploaded chat flow one question.", _chat_arguments, _chat),
    "finetune": ("Fine-tune a Phi mini of the model catalog.", _finetune_arguments, _finetune),
    "list": ("Say which connections and flows are there.", _nothing, _list),
    "delete": ("Archive the flows; delete connections, project and hub.", _nothing, _delete),
}
