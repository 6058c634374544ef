"""`pf run` in a child process, with a deadline.

Prompt flow fixes its home on import, starts workers, and hangs if the calling script has no main guard. So it
runs in a child with a guard and with a home inside the run's folder. The request goes there on standard
input, because it holds the endpoints' keys. `pf run` leaves its results below `runs/NAME/`.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.judge.flow_node import JUDGE, store_judge
from phi3flow.core.child_process import module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import read_jsonl
from phi3flow.phi3_contract import Endpoint

START_SECONDS = 120  # Prompt flow itself; a flow needs about seven on two idle cores

Columns = Mapping[str, Mapping[str, Any]]  # flow -> input -> its column mapping


@dataclass(frozen=True)
class Limits:
    """`workers` lines at a time; seconds for one line and for the whole run."""

    workers: int
    line: int
    batch: int


def run_flows(folder: Path, endpoints: Mapping[str, Endpoint], columns: Columns, limits: Limits) -> None:
    """Run the flows named in `columns`, each over `folder/inputs.jsonl` and the previous flow's outputs.

    `endpoints` are stored as connections under their names, a judge's with type OpenAI. Failed lines are no
    error. Raises Phi3flowError if the run as a whole fails or takes too long; no process of it is left
    behind.
    """
    request = {
        "folder": str(folder.resolve()),
        "endpoints": {name: asdict(endpoint) for name, endpoint in endpoints.items()},
        "columns": {name: dict(mapping) for name, mapping in columns.items()},
        "limits": asdict(limits),
    }
    log = folder / "promptflow.log"
    seconds = START_SECONDS + len(columns) * limits.batch
    try:
        code = run_child(
            module_command(__name__), log, request=request, seconds=seconds, report=partial(_report, folder)
        )
    except TimeoutError:
        raise Phi3flowError(
            f"the batch run took longer than {seconds} s", hint="lower the connection's timeout"
        ) from None
    if code != 0:
        raise Phi3flowError("Prompt flow could not run the batch", hint=f"its log is {log}")


def _report(folder: Path) -> None:
    done = {run.parent.name: len(list(run.iterdir())) for run in folder.glob("runs/*/flow_artifacts")}
    say("; ".join(f"{name}: {count} lines done" for name, count in done.items()) or "starting Prompt flow")


def outputs_of(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    """The outputs of the lines that succeeded, by line number from 0."""
    path = folder / "runs" / name / "flow_outputs" / "output.jsonl"
    return {row.pop("line_number"): row for row in (read_jsonl(path) if path.exists() else [])}


def errors_of(folder: Path, name: str) -> dict[int, str]:
    """Prompt flow's error for each line that failed, by line number from 0."""
    pages = folder.glob(f"runs/{name}/flow_artifacts/*.jsonl")  # one line each from here, 25 from the cloud
    records = [record for page in pages for record in read_jsonl(page)]
    return {
        record["line_number"]: record["run_info"]["error"]["message"]
        for record in records
        if record["run_info"]["error"]
    }


def main() -> None:
    request = json.load(sys.stdin)
    folder, limits = Path(request["folder"]), Limits(**request["limits"])
    _enter_home(folder / "home", limits)
    from custom_connections.store import store_connection

    for name, endpoint in request["endpoints"].items():
        store = store_judge if name == JUDGE else partial(store_connection, name)
        store(Endpoint(**endpoint))
    _run_in_order(folder, request["columns"])


def _enter_home(home: Path, limits: Limits) -> None:
    from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home

    prepare_home(home)
    os.environ.update(environment(home, new_encryption_key(), limits.workers))
    os.environ.update({"PF_LINE_TIMEOUT_SEC": str(limits.line), "PF_BATCH_TIMEOUT_SEC": str(limits.batch)})


def _run_in_order(folder: Path, columns: Columns) -> None:
    """Each flow but the first reads the previous run; it is skipped if that has no outputs."""
    from promptflow.client import PFClient

    client = PFClient(config={"run.output_path": str(folder / "runs")})
    previous = None
    for name, mapping in columns.items():
        if previous and not outputs_of(folder, previous.name):
            return
        previous = client.run(
            flow=folder / "flows" / name,
            data=folder / "inputs.jsonl",
            run=previous,
            column_mapping=dict(mapping),
            name=name,
        )
        if previous.status != "Completed":
            raise RuntimeError(f"run {name} is {previous.status}")


if __name__ == "__main__":
    main()
