"""How each of Azure's services tells where a long-running operation stands: its addresses and its words.

Azure ML is three services here: workspaces, compute, and the front end of everything else. Those and ARM's
deployments are as recorded; `GENERIC` stands for all other providers and is ARM's contract, not a recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from azure_emulator.front.wire import Document

ML = "Microsoft.MachineLearningServices"
NEVER = "0001-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Service:
    """`result` is empty where a deletion names no Location; with `made_at`, a PUT names its resource there.

    `prefix` opens the operation's name, before the workspace's id. Where `result` is `status` again,
    `type=location` in the query asks for the result.
    """

    provider: str
    status: str
    result: str = ""
    made_at: bool = False
    timeout: str = ""
    prefix: str = ""
    running: str = "InProgress"

    def answer(self, name: str, path: str, record: Document) -> Document:
        """What a poll of the status says."""
        status = self.running if record["status"] == "InProgress" else record["status"]
        error = {"error": record["error"]} if "error" in record else {}
        if self.provider != ML:
            return {"id": path, "name": name, "status": status, **error}
        if self.prefix:
            times = {"startTime": record["began"], "endTime": record.get("ended", NEVER)}
            error = {"error": {**record["error"], "details": [], "additionalInfo": []}} if error else {}
            return {"id": path, "name": name, **times, "percentComplete": 0.0, "status": status, **error}
        done = {"percentComplete": 100.0} if status == "Succeeded" else {}
        return {"status": status, **done, **error}


COMPUTE = Service(ML, "computeOperationsStatus")
WORKSPACES = Service(ML, "workspaceOperationsStatus", "workspaceOperationsStatus")
_FRONT = {
    "status": "mfeOperationsStatus",
    "result": "mfeOperationResults",
    "made_at": True,
    "timeout": "PT30M",
    "running": "Updating",
}
ENDPOINTS = Service(ML, prefix="oeidp", **_FRONT)
DEPLOYMENTS = Service(ML, prefix="odidp", **_FRONT)
JOBS = Service(ML, prefix="jobop", **_FRONT)
GENERIC = Service("", "operationsStatus", "operationResults")
STATUSES: Sequence[Service] = (COMPUTE, WORKSPACES, ENDPOINTS, GENERIC)
