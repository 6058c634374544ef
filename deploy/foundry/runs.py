"""A batch run in the cloud: submitted under a name of ours, watched, fetched. One question is a run, too."""

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.azure.shared.names import OURS
from deploy.foundry.connections import as_flows_read_it
from deploy.foundry.flows import require_flow, resolved
from deploy.foundry.target import Target
from evaluation.asking.batch import QUESTION
from evaluation.asking.promptflow_run import errors_of, outputs_of
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_folder import connections_of
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.polling import poll

if TYPE_CHECKING:
    from promptflow.entities import Run

CHAT = "chat"
COMPLETED, ENDED = "Completed", frozenset({"Completed", "Failed", "Canceled", "NotResponding"})


def find_run(target: Target, name: str) -> "Run | None":
    from promptflow._sdk._errors import RunNotFoundError

    try:
        return target.pf.runs.get(name)
    except RunNotFoundError:
        return None


def submit(target: Target, name: str, flow: str, inputs: Path, columns: Mapping[str, Any]) -> None:
    """Start a run of the uploaded flow with that id, unless a run of the name stands there already.

    The service sets up the flow's compute session, which installs its requirements, and ends it when idle.
    """
    if find_run(target, name) is not None:
        return
    target.pf.run(
        flow=f"azureml:{flow}",
        data=str(inputs),
        column_mapping=dict(columns),
        name=name,
        display_name=name,
        tags={OURS: "run"},
    )


def wait(target: Target, name: str) -> None:
    """Until the run is completed. Raises Phi3flowError when it fails or outlasts the patience."""
    shown = ""

    def look() -> "Run | None":
        nonlocal shown
        run = find_run(target, name)
        status = run.status if run is not None else "missing"
        if status != shown:
            say(f"run {name}: {status}")
            shown = status
        return run if status in (COMPLETED, *ENDED) else None

    try:
        run = poll(look, seconds=target.cloud.patience)
    except TimeoutError:
        raise Phi3flowError(
            f"run {name} is still {shown.lower()}; Azure continues",
            "the same command watches it again (PHI3FLOW_AZURE_PATIENCE waits longer)",
        ) from None
    if run.status != COMPLETED:
        raise Phi3flowError(
            f"run {name} ended as {run.status.lower()}{_why(run)}", "the same command tries again"
        )


def _why(run: "Run") -> str:
    error = (getattr(run, "_error", None) or {}).get("error") or {}
    return f": {error['message']}" if error.get("message") else ""


def fetch(target: Target, name: str, folder: Path) -> None:
    """The completed run as `folder/runs/NAME`, as `pf run` leaves one here; complete or not at all."""
    place = folder / "runs" / name
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        target.pf.runs.download(name, output=temporary)
        shutil.move(Path(temporary) / name, place)


def ask(target: Target, question: str, system: str) -> str:
    """The chat flow's answer, by a run of one line: the portal's own chat has no public API.

    Raises Phi3flowError where flow or connection are missing, or the flow did not answer.
    """
    with resolved(CHAT) as flow:
        for connection in connections_of(flow.folder):
            as_flows_read_it(target.cloud, connection)
    name = f"phi3flow-{CHAT}-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as temporary:
        folder = Path(temporary)
        inputs = folder / "inputs.jsonl"
        write_jsonl(inputs, [{"question": question, "chat_history": [], "system": system}])
        submit(target, name, require_flow(target, CHAT), inputs, QUESTION)
        wait(target, name)
        fetch(target, name, folder)
        outputs, errors = outputs_of(folder, name), errors_of(folder, name)
    if 0 not in outputs:
        raise Phi3flowError(
            f"the flow did not answer: {errors.get(0, 'no reason is recorded')}", "phi3flow foundry connect"
        )
    return str(outputs[0]["answer"])
