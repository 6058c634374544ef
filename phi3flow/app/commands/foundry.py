"""Run the flows, and batch runs of them, in Azure AI Foundry.

example: phi3flow foundry create --plan

The project is called after PHI3FLOW_AZURE_WORKSPACE, whose endpoints it connects to.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home_without_store
from deploy.azure.shared.plan import NOT_OURS, carry_out
from deploy.azure.shared.session import connect as connect_to_azure
from deploy.azure.shared.sizes import profile_for
from deploy.foundry.connections import FlowConnection, as_flows_read_it
from deploy.foundry.target import Target, project_steps, target_of
from phi3flow.app.commands.azure import Out as RunFolder
from phi3flow.app.commands.azure import Plan, ProfileName, in_the_cloud, planned, removed, run_folder
from phi3flow.app.commands.compare import Force, Gate, compared
from phi3flow.app.commands.connect import (
    Contract,
    Deployment,
    Model,
    Timeout,
    endpoint_at,
    endpoint_in_azure,
    given,
)
from phi3flow.app.commands.train import Data
from phi3flow.core.console import Outcome, table
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.flow_folder import FLOWS, connections_of
from phi3flow.core.folder_lock import writing
from phi3flow.core.lineage import result_file
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Endpoint, EndpointError, Sampling

CONNECTIONS = [side.connection for side in SIDES]
FAILED_LINES = 5
Workspace = Annotated[
    bool, Option("--workspace", help="Use the Azure ML workspace itself instead of a Foundry project.")
]
Out = Annotated[
    Path | None,
    Option(metavar="DIR", help="Folder of answers and report (default: {runs}/azure/comparison)."),
]


def create(
    ai_services: Annotated[
        str, Option(metavar="NAME", help="Connect the hub to this Azure AI Services account (default: none).")
    ] = "",
    plan: Plan = False,
) -> Outcome:
    """Create the hub and the project, and what they need.

    example: phi3flow foundry create --plan
    """
    target = _target(workspace=False)
    return planned(
        carry_out(project_steps(target.endpoints, ai_services), plan=plan), plan, "phi3flow foundry connect"
    )


def connect(
    names: Annotated[
        list[str] | None,
        Argument(metavar="NAME...", help=f"Connections to store (default: {' and '.join(CONNECTIONS)})."),
    ] = None,
    *,
    endpoint: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Full scoring URL (default: of the endpoint that `phi3flow azure deploy` made for NAME).",
        ),
    ] = None,
    contract: Contract = None,
    model: Model = None,
    deployment: Deployment = None,
    timeout: Timeout = None,
    workspace: Workspace = False,
    plan: Plan = False,
) -> Outcome:
    """Store the endpoints as connections that flows recognise, and try each.

    example: phi3flow foundry connect

    The key of --endpoint comes from PHI3FLOW_ENDPOINT_KEY or a prompt.
    """
    if endpoint and len(names or CONNECTIONS) != 1:
        raise BadInput("--endpoint belongs to one NAME", "phi3flow foundry connect phi3-tuned --endpoint URL")
    target = _target(workspace=workspace)
    target.require()
    asked = given(contract=contract, model=model, deployment=deployment, timeout=timeout)
    wanted = {name: _endpoint(name, target, endpoint, dict(asked)) for name in names or CONNECTIONS}
    steps = [FlowConnection(target.cloud, name, found) for name, found in wanted.items()]
    actions = carry_out(steps, plan=plan)
    if not plan:
        _try(target, list(wanted))
    return planned(actions, plan, "phi3flow foundry upload")


def upload(
    flows: Annotated[
        list[str] | None,
        Argument(
            metavar="FLOW...",
            help="chat, grade, compare, tutorial, or folders of flows (default: the first three).",
        ),
    ] = None,
    workspace: Workspace = False,
    plan: Plan = False,
) -> Outcome:
    """Upload the flows, each once, and print where to open them.

    example: phi3flow foundry upload
    """
    from deploy.foundry.flows import FlowUpload, resolved

    with ExitStack() as stack:
        folders = [stack.enter_context(resolved(asked)) for asked in flows or FLOWS]
        target = _target(workspace=workspace)
        urls: dict[str, str] = {}
        needed = {name for flow in folders for name in connections_of(flow.folder)}
        target.require()
        for name in sorted(needed):
            as_flows_read_it(target.cloud, name)
        actions = carry_out([FlowUpload(target, flow, urls=urls) for flow in folders], plan=plan)
    return planned(actions, plan, 'phi3flow foundry chat "QUESTION"', urls=urls)


def chat(
    question: Annotated[str, Argument(metavar="QUESTION", help="What to ask the tuned model.")],
    system: Annotated[str, Option(metavar="TEXT", help="System prompt (default: none).")] = "",
    workspace: Workspace = False,
) -> Outcome:
    """Ask the uploaded chat flow one question.

    example: phi3flow foundry chat "Who founded Microsoft?"
    """
    from deploy.foundry.runs import ask

    answer = ask(_target(workspace=workspace), question, system)
    return Outcome({"question": question, "answer": answer}, answer)


def run(
    data: Annotated[Path, Option(metavar="FILE", help="The test.jsonl that `phi3flow prepare` wrote.")],
    out: Out = None,
    workspace: Workspace = False,
) -> Outcome:
    """Ask base and tuned every question of a test file, as batch runs in the cloud.

    example: phi3flow foundry run --data runs/mine/data/test.jsonl

    Exit code 5: some lines failed; the same command asks them again.
    """
    from deploy.foundry.cloud_comparison import failures, run_in_cloud

    folder = _out(out)
    with writing(folder):
        answers = run_in_cloud(_target(workspace=workspace), data, folder)
    counts = {"runs": answers.runs, "expected": len(answers.sides["base"]), "failed": answers.failed}
    if answers.failed:
        text = f"{failures(answers)}\nnext: the same command asks them again"
        return Outcome(counts, text, FAILED_LINES)
    text = f"all {counts['expected']} lines are answered\nnext: phi3flow foundry download --out {folder}"
    return Outcome(counts, text)


def download(
    out: Out = None, gate: Gate = None, workspace: Workspace = False, force: Force = False
) -> Outcome:
    """Fetch the answers of the batch runs, and write the report with its verdict.

    example: phi3flow foundry download

    Exit code 0: promote; 3: hold; 4: not enough data.
    """
    from deploy.foundry.cloud_comparison import answers_in_cloud, report
    from evaluation.compare import Options
    from evaluation.metrics.text_metrics import default_backend
    from evaluation.scored_rows import say_failures
    from evaluation.verdict.gate import load_gate

    options = Options(load_gate(gate), Settings.load().batch_workers, text_metrics=default_backend())
    folder = _out(out)
    result_file(folder / "report.json", force=force)
    target = _target(workspace=workspace)
    with writing(folder):
        answers = answers_in_cloud(target, folder)
        for side, records in answers.sides.items():
            say_failures(side, records)
        return compared(report(answers, target.name, folder, options), folder)


def finetune(
    *,
    data: Data,
    model: Annotated[
        str, Option(metavar="NAME:VERSION", help="Model of the catalog, such as Phi-4-mini-instruct:1.")
    ],
    learning_rate: Annotated[float, Option(metavar="X", help="Peak learning rate.")] = 5e-6,
    scheduler: Annotated[str, Option(metavar="NAME", help="lr_scheduler_type of transformers.")] = "cosine",
    epochs: Annotated[int, Option(metavar="N", help="Passes over the data.")] = 3,
    profile: ProfileName = "gpu",
    out: RunFolder = None,
    plan: Plan = False,
) -> Outcome:
    """Fine-tune a Phi mini with the model catalog's own fine-tuning.

    example: phi3flow foundry finetune --data runs/mine/data --model Phi-4-mini-instruct:1
    """
    from deploy.foundry.catalog import CatalogTraining
    from deploy.foundry.catalog import finetune as finetune_in_catalog

    cluster = profile_for(profile, compute=Settings.load().azure_compute)
    asked = CatalogTraining(data, model, learning_rate, scheduler, epochs, cluster)
    asked.require()
    folder = run_folder(out)
    actions, job = finetune_in_catalog(connect_to_azure(Settings.load()), asked, folder, plan=plan)
    return planned(actions, plan, f"phi3flow azure deploy --out {folder}", job=job)


def list_(workspace: Workspace = False) -> Outcome:
    """List the connections and flows that are there.

    example: phi3flow foundry list
    """
    from deploy.foundry.overview import listing

    target = _target(workspace=workspace)
    found = listing(target)
    rows = [(one.kind, one.name, one.where, "" if one.ours else NOT_OURS) for one in found]
    text = table(("kind", "name", "endpoint or flow id", ""), rows)
    return Outcome({"target": target.name, "found": [one._asdict() for one in found]}, text)


def delete(workspace: Workspace = False, plan: Plan = False) -> Outcome:
    """Archive the flows; delete connections, project and hub.

    example: phi3flow foundry delete --plan
    """
    from deploy.foundry.overview import removals

    target = _target(workspace=workspace)
    return removed(carry_out(list(removals(target)), plan=plan), plan)


@contextmanager
def _at_home(step: str) -> Iterator[None]:
    """In a Prompt flow home without a store, which Prompt flow's client needs."""
    with in_the_cloud(step):
        enter_home_without_store(Settings.load())
        yield


STEPS = {
    (name := step.__name__.rstrip("_")): _at_home(f"foundry {name}")(step)
    for step in (create, connect, upload, chat, run, download, finetune, list_, delete)
}


def _out(out: Path | None) -> Path:
    return out or run_folder(None) / "comparison"


def _target(*, workspace: bool) -> Target:
    return target_of(Settings.load(), workspace=workspace)


def _endpoint(name: str, target: Target, url: str | None, asked: dict[str, Any]) -> Endpoint:
    if url:
        return replace(endpoint_at(name, url, Settings.load()), **asked)
    found = endpoint_in_azure(name, target.endpoints, asked.pop("deployment", None))
    return replace(found, **asked)


def _try(target: Target, names: list[str]) -> None:
    """One short question through each connection, as it reads back."""
    from evaluation.asking.measuring import PREFLIGHT

    for name in names:
        try:
            as_flows_read_it(target.cloud, name).complete(PREFLIGHT, Sampling(max_tokens=1))
        except EndpointError as error:
            raise Phi3flowError(f"connection {name} is stored, but {error}", error.hint) from None
