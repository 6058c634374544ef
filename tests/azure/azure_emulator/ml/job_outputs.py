"""Where a job's outputs lie, in every way in which a client may name them."""

import re

from azure_emulator.arm.store import Store
from azure_emulator.front.wire import Document, front_error

OUTPUT_URI = re.compile(
    r"azureml://(?:.*/)?jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths/?)?(?P<path>.*)"
)


def artifact_folder(job: str) -> str:
    """The prefix of a job's logs and default outputs in the artifact store."""
    return f"ExperimentRun/dcid.{job}"


def output_uri(job: str, name: str, declared: Document) -> str:
    """A named output lies in the workspace's blob store unless its job says where."""
    if name == "default":
        return f"azureml://datastores/workspaceartifactstore/{artifact_folder(job)}"
    return str(declared.get("uri") or f"azureml://datastores/workspaceblobstore/paths/azureml/{job}/{name}/")


def resolve_job_output(store: Store, workspace: str, uri: str) -> str:
    """A datastore's URI for `azureml://jobs/JOB/outputs/NAME[/paths/...]`; any other URI as it is."""
    match = OUTPUT_URI.fullmatch(uri)
    if match is None:
        return uri
    job = store.require(f"{workspace}/jobs/{match['job']}")
    if job["properties"]["status"] != "Completed":
        raise front_error(400, "UserError", f"The job {match['job']} has not completed: it has no outputs.")
    if job["properties"].get("jobType") == "FineTuning":
        raise front_error(400, "UserError", f"The output {match['output']} of a fine-tuning job has no uri.")
    declared = job["properties"]["outputs"].get(match["output"])
    if declared is None:
        if match["output"] != "artifacts":
            raise front_error(400, "UserError", f"The job has no output {match['output']}.")
        declared = {"uri": output_uri(match["job"], "default", {})}
    return f"{declared['uri'].rstrip('/')}/{match['path']}".rstrip("/")
