"""A batch run in the cloud: submitted under a name of ours, watched, fetched. One question is a run, too."""

import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.azure.shared.job import COMPLETED, watch
from deploy.azure.shared.names import OURS
from deploy.foundry.connections import as_flows_read_it
from deploy.foundry.flows import require_flow, resolved
from deploy.foundry.target import Target
from evaluation.asking.batch import QUESTION
from evaluation.asking.promptflow_run import errors_of, outputs_of
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_folder import connections_of
from phi3flow.core.jsonl import write_jsonl

CHAT = "chat"


def status_of(target: Target, name: str) -> str | None:
    """None where no such run was submitted."""
    from promptflow._sdk._errors import RunNotFoundError

    try:
        return str(target.pf.runs.get(name).status)
    except RunNotFoundError:
        return None


def submit(target: Target, name: str, flow: str, inputs: Path, columns: Mapping[str, Any]) -> None:
    """Start a run of the uploaded flow with that id, unless a run of the name stands there already.

    The service sets up the flow's compute session, which installs its requirements, and ends it when idle.
    """
    if status_of(target, name) is not None:
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
    try:
        status = watch(f"run {name}", lambda: status_of(target, name), seconds=target.cloud.patience)
    except TimeoutError:
        raise Phi3flowError(
            f"run {name} has not ended yet; Azure continues",
            "the same command watches it again (PHI3FLOW_AZURE_PATIENCE waits longer)",
        ) from None
    if status != COMPLETED:
        error = (getattr(target.pf.runs.get(name), "_error", None) or {}).get("error") or {}
        why = f": {error['message']}" if error.get("message") else ""
        raise Phi3flowError(f"run {name} ended as {status.lower()}{why}", "the same command tries again")


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
