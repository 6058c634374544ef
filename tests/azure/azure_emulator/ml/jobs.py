"""Command and fine-tuning jobs: what is asked and answered about them; `job_runner` runs them."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.operations import Ending
from azure_emulator.arm.services import JOBS as JOBS_SERVICE
from azure_emulator.arm.services import ML
from azure_emulator.arm.store import resource_document
from azure_emulator.cloud import Cloud
from azure_emulator.front.answers import fill, told
from azure_emulator.front.routing import Plane
from azure_emulator.front.signatures import container_signature
from azure_emulator.front.wire import AzureError, Document, Reply, Request, front_error
from azure_emulator.ml import finetuning
from azure_emulator.ml.job_outputs import output_uri
from azure_emulator.ml.job_runner import FINAL

KIND = f"{ML}/workspaces/jobs"
JOBS = f"{WORKSPACE}/jobs"
JOB = f"{JOBS}/{{job}}"
FIXED = ("command", "codeId", "environmentId", "computeId", "distribution")
STUDIO = "https://ml.azure.com/runs"


def put(cloud: Cloud, request: Request) -> Reply:
    """A job starts once; a second PUT may only change what describes it."""
    workspace = cloud.store.require(arm.workspace_id(request))
    old, body = cloud.store.get(request.path), request.json
    sent = finetuning.completed(body["properties"], workspace["location"])
    if old:
        return _describe(cloud, request, old, sent)
    _check(cloud, sent)
    name = request["job"]
    outputs = {
        key: {"mode": "ReadWriteMount", **declared, "uri": output_uri(name, key, declared)}
        for key, declared in (sent.get("outputs") or {}).items()
    }
    outputs.setdefault(
        "default",
        {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": output_uri(name, "default", {})},
    )
    studio = f"{STUDIO}/{name}?wsid={_short(workspace['id'])}"
    tracking = f"azureml://{workspace['location']}.api.azureml.ms/mlflow/v1.0{workspace['id']}?"
    job = resource_document(
        request.path,
        KIND,
        body,
        None,
        status="Starting",
        experimentName=sent.get("experimentName") or "Default",
        displayName=sent.get("displayName") or name,
        outputs=outputs,
        services={
            "Tracking": {"jobServiceType": "Tracking", "endpoint": tracking},
            "Studio": {"jobServiceType": "Studio", "endpoint": studio},
        },
    )
    cloud.store.put(job)
    cloud.jobs.start(job["id"])
    return Reply(201, job, arm.created_at(request))


def _check(cloud: Cloud, sent: Document) -> None:
    """Raise 400 for what the service refuses at once."""
    if sent.get("jobType") not in {"Command", "FineTuning"}:
        raise front_error(400, "UserError", f"Jobs of type {sent.get('jobType')} are not emulated.")
    for name in ("computeId", "environmentId", "codeId"):
        if sent.get(name) and sent[name].startswith("/") and cloud.store.get(sent[name]) is None:
            raise _unknown(name, sent[name].rsplit("/", 1)[1])


def _unknown(name: str, value: str) -> AzureError:
    if name == "computeId":
        return front_error(400, "UserError", f"Unknown compute target '{value}'.")
    return front_error(400, "UserError", f"{name}: {value} was not found.")


def _describe(cloud: Cloud, request: Request, old: Document, sent: Document) -> Reply:
    if any(sent.get(name) != old["properties"].get(name) for name in FIXED):
        message = (
            f"A job with this name already exists: {request['job']}. Only description, tags, displayName, "
            "properties, and isArchived can be updated."
        )
        raise front_error(400, "UserError", message)
    with cloud.store.changing(request.path) as properties:
        changeable = ("description", "tags", "displayName", "properties", "isArchived")
        properties |= {name: sent[name] for name in changeable if name in sent}
    return Reply(200, cloud.store.require(request.path))


def list_all(cloud: Cloud, request: Request) -> Reply:
    """The newest first."""
    found = cloud.store.below(request.path, kind=KIND)[::-1]
    return Reply(200, {"value": [item for item in found if not item["properties"].get("isArchived")]})


def cancel(cloud: Cloud, request: Request) -> Reply:
    job_id = request.path.rsplit("/", 1)[0]
    job = cloud.store.require(job_id)
    if job["properties"]["status"] in FINAL:
        return Reply(200)
    with cloud.store.changing(job_id) as properties:
        properties["status"] = "CancelRequested"
    operation = cloud.operations.begin(Ending(f"{job_id}/cancel"))
    return arm.accepted(cloud, operation, JOBS_SERVICE, job)


def details(cloud: Cloud, request: Request) -> Reply:
    """The run's history, with an address for each log file; `stream` reads them from there."""
    job = cloud.store.require(f"{arm.workspace_id(request)}/jobs/{request['job']}")
    cloud.jobs.publish_logs(job["id"])
    properties = job["properties"]
    answer: Document = {
        "runId": request["job"],
        "target": (properties.get("computeId") or "").rsplit("/", 1)[-1],
        "status": properties["status"],
        "startTimeUtc": properties.get("startTimeUtc"),
        "endTimeUtc": properties.get("endTimeUtc"),
        "properties": {},
        "inputDatasets": [],
        "outputDatasets": [],
        "logFiles": log_addresses(cloud, job),
        "submittedBy": "Emulator user",
    }
    if error := properties.get("emulatorError"):
        answer["error"] = {"error": error}
    return Reply(200, answer)


def log_addresses(cloud: Cloud, job: Document) -> dict[str, str]:
    account, container, prefix = cloud.jobs.artifacts(job["id"])
    signature = container_signature(cloud, account, container)
    folder = f"https://{account}.blob.core.windows.net/{container}/{prefix}"
    return {name: f"{folder}/{name}?{signature}" for name in cloud.jobs.log_names(job["id"])}


def run_data(cloud: Cloud, request: Request) -> Reply:
    """What `jobs.download` asks first. No output is a data asset, so it looks in the default places."""
    name = request.json["runId"]
    job = cloud.store.require(f"{arm.workspace_id(request)}/jobs/{name}")
    run = {
        "runId": name,
        "status": job["properties"]["status"],
        "runType": "azureml.scriptrun",
        "outputs": {},
    }
    return Reply(200, {"runMetadata": run})


def resume(cloud: Cloud) -> None:
    """A job that ran when the emulator stopped has failed."""
    for job in cloud.store.below("", kind=KIND):
        if job["properties"]["status"] not in FINAL:
            cloud.jobs.fail(job["id"], "NodeLost", "The emulator was stopped while the job ran.")


def _short(workspace: str) -> str:
    """A workspace as the studio's addresses and asset URIs write it."""
    parts = workspace.split("/")
    return f"/subscriptions/{parts[2]}/resourcegroups/{parts[4]}/workspaces/{parts[-1]}"


SERVICE = dict.fromkeys(("port", "status", "errorMessage", "properties", "nodes"))
RESOURCES = {"instanceCount": 1, "shmSize": "2g"} | dict.fromkeys(
    ("maxInstanceCount", "instanceType", "locations", "properties", "dockerArgs")
)
EVERY = {
    **dict.fromkeys(("description", "computeId", "componentId", "codeId", "identity", "distribution")),
    **dict.fromkeys(("notificationSetting", "secretsConfiguration", "autologgerSettings", "limits")),
    "queueSettings": None,
    "tags": {},
    "properties": {"_azureml.ComputeTargetType": "amlctrain"},
    "isArchived": False,
    "environmentVariables": {},
    "parameters": {},
    "inputs": {},
    "resources": RESOURCES,
}
RUN_FILES = {
    "ProcessInfoFile": "azureml-logs/process_info.json",
    "ProcessStatusFile": "azureml-logs/process_status.json",
}


def _shape(job: Document, version: str) -> None:
    told(job, "createdAt", "createdBy", "createdByType")
    properties = job["properties"]
    for name in ("startTimeUtc", "endTimeUtc"):
        properties.pop(name, None)
    if properties["jobType"] == "FineTuning":
        finetuning.shape(properties, version)
        return
    fill(properties, EVERY)
    if properties["status"] != "Starting":
        fill(properties["properties"], RUN_FILES)
    for service in (properties.get("services") or {}).values():
        fill(service, SERVICE)
    for one in properties["inputs"].values():
        fill(one, {"description": None})
    for one in properties["outputs"].values():
        fill(one, dict.fromkeys(("description", "assetName", "assetVersion", "autoDeleteSetting")))
    if properties["queueSettings"]:
        fill(properties["queueSettings"], {"priority": None})


SHAPES = {KIND: _shape}
HISTORY = f"/history/v1.0{WORKSPACE}"
ROUTES = [
    managed("GET", JOBS, list_all),
    managed("GET", JOB, arm.get),
    managed("PUT", JOB, put),
    managed("DELETE", JOB, arm.deletion(JOBS_SERVICE)),
    managed("POST", f"{JOB}/cancel", cancel),
    managed("POST", f"{HISTORY}/rundata", run_data, Plane.WORKSPACE),
    managed("GET", f"{HISTORY}/runs/{{job}}/details", details, Plane.WORKSPACE),
    managed("GET", f"{HISTORY}/experiments/{{experiment}}/runs/{{job}}/details", details, Plane.WORKSPACE),
]
