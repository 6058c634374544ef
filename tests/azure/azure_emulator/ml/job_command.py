"""What a job's command line, processes and folders are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from azure_emulator.endpoints import local_python
from azure_emulator.endpoints.workers import clean_environment
from azure_emulator.front.ports import free_port
from azure_emulator.front.wire import Document

OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
PLACEHOLDER = re.compile(r"\$\{\{\s*(inputs|outputs)\.([\w-]+)\s*\}\}")
DURATION = re.compile(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?")


@dataclass(frozen=True)
class Workplace:
    """One job's folders; `code` is where its command runs."""

    root: Path

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def make(self) -> None:
        """`code` may be there already."""
        for folder in (self.code, self.logs / "user_logs", self.root / "outputs"):
            folder.mkdir(parents=True, exist_ok=True)


def processes(job: Document, place: Workplace) -> Iterator[tuple[Path, dict[str, str]]]:
    """One for each rank: its log and its environment, with what PyTorch's launcher would set."""
    properties, (workspace, name) = job["properties"], split(job["id"])
    parts = workspace.split("/")
    python = local_python.create(place.root / "python")
    base = {
        **local_python.environment(python, clean_environment()),
        "AZUREML_RUN_ID": name,
        "AZUREML_ARM_SUBSCRIPTION": parts[2],
        "AZUREML_ARM_RESOURCEGROUP": parts[4],
        "AZUREML_ARM_WORKSPACE_NAME": parts[-1],
        "MLFLOW_TRACKING_URI": f"azureml://eastus2.api.azureml.ms/mlflow/v1.0{workspace}",
        "MLFLOW_RUN_ID": name,
        **{key: str(value) for key, value in (properties.get("environmentVariables") or {}).items()},
    }
    distribution = properties.get("distribution") or {}
    nodes, each = nodes_of(job), int(distribution.get("processCountPerInstance") or 1)
    if not distribution:
        yield place.logs / "user_logs" / "std_log.txt", base
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(nodes * each),
    }
    for rank in range(nodes * each):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank % each), "NODE_RANK": str(rank // each)}
        log = place.logs / "user_logs" / f"std_log_process_{rank}.txt"
        yield log, {**base, **shared, **own, "LOCAL_WORLD_SIZE": str(each)}


def fill(command: str, values: dict[str, str]) -> str:
    """Put inputs and outputs into a command; `$[[...]]` goes where an optional input was not given."""

    def optional(match: re.Match[str]) -> str:
        wanted = [f"{kind}.{name}" for kind, name in PLACEHOLDER.findall(match[1])]
        return match[1] if all(name in values for name in wanted) else ""

    command = OPTIONAL.sub(optional, command)
    return PLACEHOLDER.sub(lambda match: values.get(f"{match[1]}.{match[2]}", match[0]), command)


def nodes_of(job: Document) -> int:
    return int((job["properties"].get("resources") or {}).get("instanceCount") or 1)


def seconds(duration: str | None) -> float:
    match = DURATION.fullmatch(duration or "")
    if not match:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def split(job_id: str) -> tuple[str, str]:
    workspace, name = job_id.rsplit("/jobs/", 1)
    return workspace, name
