"""One question to the uploaded chat flow, in its compute session in the cloud."""

import tempfile
import uuid
from pathlib import Path

from deploy.foundry.connections import as_flows_read_it
from deploy.foundry.flows import require_flow, resolved
from deploy.foundry.runs import fetch, submit, wait
from deploy.foundry.target import Target
from evaluation.asking.batch import QUESTION
from evaluation.asking.promptflow_run import errors_of, outputs_of
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_folder import connections_of
from phi3flow.core.jsonl import write_jsonl

FLOW = "chat"


def ask(target: Target, question: str, system: str) -> str:
    """The answer, by a run of one line: that is documented, while the portal's own chat has no public API.

    Raises Phi3flowError where flow or connection are missing, or the flow did not answer.
    """
    check_connections(target)
    name = f"phi3flow-{FLOW}-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as temporary:
        folder = Path(temporary)
        inputs = folder / "inputs.jsonl"
        write_jsonl(inputs, [{"question": question, "chat_history": [], "system": system}])
        submit(target, name, require_flow(target, FLOW), inputs, QUESTION)
        wait(target, name)
        fetch(target, name, folder)
        outputs, errors = outputs_of(folder, name), errors_of(folder, name)
    if 0 not in outputs:
        raise Phi3flowError(
            f"the flow did not answer: {errors.get(0, 'no reason is recorded')}", "phi3flow foundry connect"
        )
    return str(outputs[0]["answer"])


def check_connections(target: Target, flow: str = FLOW) -> None:
    """Raises Phi3flowError unless every connection that the flow names can be used there."""
    with resolved(flow) as found:
        names = connections_of(found.folder)
    for name in names:
        as_flows_read_it(target.cloud, name)
