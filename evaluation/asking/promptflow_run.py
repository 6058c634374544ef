"""`pf run` in a child process, with a deadline.

Prompt flow fixes its home on import, starts workers, and hangs if the calling script has no main guard. So it
runs in a child with a guard and with a home inside the run's folder. The request goes there on standard
input, because it holds the endpoints' keys. `pf run` leaves its results below `runs/NAME/`.
"""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from custom_connections.promptflow_home import environment, new_encryption_key, prepare_home
from evaluation.metrics.grader import openai_base_url, require_package
from phi3flow.core.child_process import module_command, run_child
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_folder import DAG
from phi3flow.core.jsonl import read_jsonl
from phi3flow.phi3_contract import Endpoint

JUDGE = "phi3-judge"
START_SECONDS = 120  # Prompt flow itself; a flow needs about seven on two idle cores

Columns = Mapping[str, Mapping[str, Any]]  # flow -> input -> its column mapping


def give_judge(flow: Path, judge: Endpoint) -> None:
    """Switch on the judge node of a resolved grade flow. Raises BadInput if promptflow-tools is missing."""
    from ruamel.yaml import YAML

    require_package("promptflow-tools")
    yaml = YAML()
    dag = yaml.load(flow / DAG)
    inputs = next(node["inputs"] for node in dag["nodes"] if node["name"] == "judge")
    inputs |= {"connection": JUDGE, "model": judge.model or "phi3", "seconds": judge.timeout}
    with (flow / DAG).open("w", encoding="utf-8") as stream:
        yaml.dump(dag, stream)


def run_flows(
    folder: Path, endpoints: Mapping[str, Endpoint], columns: Columns, *, lines: int, workers: int
) -> None:
    """Run the flows named in `columns`, each over `folder/inputs.jsonl` and the previous flow's outputs.

    `endpoints` are stored as connections under their names, a judge's with type OpenAI; their own timeouts
    set the deadlines. Failed lines are no error. Raises Phi3flowError if the run as a whole fails or takes
    too long; no process of it is left behind.
    """
    workers = min(workers, lines)
    line_seconds = math.ceil(max(endpoint.timeout for endpoint in endpoints.values())) + 10
    batch_seconds = line_seconds * math.ceil(lines / workers) + 60
    request = {
        "folder": str(folder.resolve()),
        "endpoints": {name: asdict(endpoint) for name, endpoint in endpoints.items()},
        "columns": {name: dict(mapping) for name, mapping in columns.items()},
        "workers": workers,
        "limits": {"PF_LINE_TIMEOUT_SEC": str(line_seconds), "PF_BATCH_TIMEOUT_SEC": str(batch_seconds)},
    }
    log = folder / "promptflow.log"
    seconds = START_SECONDS + len(columns) * batch_seconds
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
    folder = Path(request["folder"])
    prepare_home(folder / "home")
    os.environ.update(environment(folder / "home", new_encryption_key(), request["workers"]))
    os.environ.update(request["limits"])
    from custom_connections.store import store_connection

    for name, endpoint in request["endpoints"].items():
        store = _store_judge if name == JUDGE else partial(store_connection, name)
        store(Endpoint(**endpoint))
    _run_in_order(folder, request["columns"])


def _store_judge(judge: Endpoint) -> None:
    """Store the judge as a connection of type OpenAI, in the Prompt flow home that was entered."""
    from promptflow.client import PFClient
    from promptflow.entities import OpenAIConnection

    connection = OpenAIConnection(name=JUDGE, api_key=judge.key, base_url=openai_base_url(judge))
    PFClient().connections.create_or_update(connection)


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
