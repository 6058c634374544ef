"""One batch run in the cloud: submit it under a name that is known before, watch it, fetch all it left."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.azure.steps.names import OURS
from deploy.foundry.target import Target
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.polling import poll

if TYPE_CHECKING:
    from promptflow.entities import Run

COMPLETED, ENDED = "Completed", frozenset({"Completed", "Failed", "Canceled", "NotResponding"})
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.5, 15.0


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
    """Until the run is completed. Raises Phi3flowError when it fails, or outlasts our patience."""
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
            f"run {name} is still {shown.lower()}; Azure goes on with it",
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
