"""Batch runs of flows: what is asked and answered about them; `flow_runner` runs them."""

from azure_emulator.arm import ids as arm
from azure_emulator.arm.ids import WORKSPACE, managed
from azure_emulator.arm.store import now
from azure_emulator.cloud import Cloud
from azure_emulator.flows.flow_outputs import OUTPUT_STORE, artifacts, snapshot_addresses
from azure_emulator.flows.flow_runner import FINAL, key_of
from azure_emulator.flows.flows import OWNER, folder_of, require
from azure_emulator.front.routing import Plane
from azure_emulator.front.wire import Document, Reply, Request, azure_error
from azure_emulator.ml import jobs

RUNS = f"/flow/api{WORKSPACE}/BulkRuns"
RUN = f"{RUNS}/{{run}}"
HISTORY = f"/history/v1.0{WORKSPACE}"
PORTAL = "https://ml.azure.com/prompts/run"


def submit(cloud: Cloud, request: Request) -> Reply:
    """Starts a run of an uploaded flow, in a compute session that the service sets up for it."""
    workspace, sent = cloud.store.require(arm.workspace_id(request)), request.json
    name = sent["runId"]
    if cloud.store.read("flow-runs", key_of(workspace["id"], name)):
        raise azure_error(409, "UserError", f"The run {name} exists already.")
    if sent.get("sessionSetupMode") != "SystemWait":
        raise azure_error(400, "UserError", "Nobody has started a compute session for this run.")
    flow = require(cloud.store, workspace["id"], str(sent.get("flowDefinitionResourceId")).rsplit("/", 1)[1])
    run = {
        "name": name,
        "workspace": workspace["id"],
        "location": workspace["location"],
        "displayName": sent.get("runDisplayName") or name,
        "tags": sent.get("tags") or {},
        "definition": flow["flowDefinitionFilePath"],
        "flowName": flow["flowName"],
        "dataUri": (sent.get("batchDataInput") or {}).get("dataUri"),
        "inputsMapping": sent.get("inputsMapping") or {},
        "status": "NotStarted",
        "created": now(),
    }
    cloud.store.write("flow-runs", key_of(workspace["id"], name), run)
    cloud.flow_runs.start(run, folder_of(cloud, workspace["id"], run["definition"]))
    return Reply(200, name)


def find(cloud: Cloud, request: Request, name: str) -> Document | None:
    return cloud.store.read("flow-runs", key_of(arm.workspace_id(request), name))


def _require(cloud: Cloud, request: Request) -> Document:
    run = find(cloud, request, request["run"])
    if run is None:
        raise azure_error(404, "RunNotFound", f"The run {request['run']} was not found.")
    return run


def info(cloud: Cloud, request: Request) -> Reply:
    run = _require(cloud, request)
    answer: Document = {
        "flowRunId": run["name"],
        "flowRunDisplayName": run["displayName"],
        "batchDataInput": {"dataUri": run["dataUri"]},
        "outputDatastoreName": OUTPUT_STORE,
        "childRunBasePath": artifacts(run["name"]),
        "studioPortalEndpoint": f"{PORTAL}/{run['name']}",
        "studioPortalTraceEndpoint": f"{PORTAL}/{run['name']}/trace",
    }
    return Reply(200, answer)


def log(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, cloud.flow_runs.log(_require(cloud, request)))


def cancel(cloud: Cloud, request: Request) -> Reply:
    run = _require(cloud, request)
    if run["status"] not in FINAL:
        cloud.flow_runs.set(run, status="CancelRequested")
    return Reply(200, b"Succeeded", {"Content-Type": "text/plain"})


def run_data(cloud: Cloud, request: Request) -> Reply:
    """The run's history; that of a job where no run of a flow has the name."""
    run = find(cloud, request, request.json["runId"])
    if run is None:
        return jobs.run_data(cloud, request)
    done = run["status"] == "Completed"
    outputs = {key: {"assetId": _asset(run, key)} for key in ("debug_info", "flow_outputs") if done}
    metadata: Document = {
        "runId": run["name"],
        "displayName": run["displayName"],
        "description": None,
        "status": run["status"],
        "createdUtc": run["created"],
        "startTimeUtc": run.get("started"),
        "endTimeUtc": run.get("ended"),
        "tags": run["tags"],
        "runType": "azureml.promptflow.FlowRun",
        "outputs": outputs,
        "createdBy": OWNER,
        "properties": {
            "azureml.promptflow.runtime_name": "automatic",
            "azureml.promptflow.flow_name": run["flowName"],
            "azureml.promptflow.input_data": run["dataUri"],
            "azureml.promptflow.snapshot_id": run["name"],
        },
    }
    if message := run.get("error"):
        metadata["error"] = {"error": {"code": "UserError", "message": message}}
    return Reply(200, {"runMetadata": metadata})


def _asset(run: Document, output: str) -> str:
    name = f"azureml_{run['name']}_output_data_{output}"
    return f"azureml://locations/{run['location']}/workspaces/any/data/{name}/versions/1"


def asset_location(cloud: Cloud, request: Request) -> Reply:
    """Where an output lies; `debug_info` is the folder of all that a run left."""
    name, _, output = request.json["value"].split("/")[-3].partition("_output_data_")
    path = artifacts(name.removeprefix("azureml_")) + ("/flow_outputs" if output == "flow_outputs" else "")
    workspace = arm.workspace_id(request).replace("/providers/Microsoft.MachineLearningServices", "")
    uri = f"azureml:/{workspace}/datastores/{OUTPUT_STORE}/paths/{path}"
    return Reply(200, {"dataVersion": {"dataUri": uri}})


def snapshot(cloud: Cloud, request: Request) -> Reply:
    workspace, run = arm.workspace_id(request), request.json["snapshotOrAssetId"]
    return Reply(200, snapshot_addresses(cloud.store, cloud.blobs, workspace, run))


def metrics(cloud: Cloud, request: Request) -> Reply:
    values = (_require(cloud, request)).get("metrics") or {}
    return Reply(
        200, {"value": [{"name": name, "value": [{"data": {name: value}}]} for name, value in values.items()]}
    )


def traces(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, {"traceCosmosConfiguration": "Disabled", "traceCosmosStatus": "NotExists"})


def resume(cloud: Cloud) -> None:
    """A run that was going on when the emulator stopped has failed."""
    for key in cloud.store.keys("flow-runs"):
        run = cloud.store.read("flow-runs", key)
        if run and run["status"] not in FINAL:
            message = "The emulator was stopped during the run."
            cloud.flow_runs.set(run, status="Failed", error=message)


ROUTES = [
    managed("POST", f"{RUNS}/submit", submit, Plane.WORKSPACE),
    managed("GET", RUN, info, Plane.WORKSPACE),
    managed("GET", f"{RUN}/logContent", log, Plane.WORKSPACE),
    managed("POST", f"{RUN}/cancel", cancel, Plane.WORKSPACE),
    managed("POST", f"{HISTORY}/rundata", run_data, Plane.WORKSPACE),
    managed("POST", f"/data/v1.0{WORKSPACE}/dataversion/getByAssetId", asset_location, Plane.WORKSPACE),
    managed("POST", f"/content/v2.0{WORKSPACE}/snapshots/sas", snapshot, Plane.WORKSPACE),
    managed("POST", f"/metric/v2.0{WORKSPACE}/runs/{{run}}/lastvalues", metrics, Plane.WORKSPACE),
    managed("GET", f"/flow/api{WORKSPACE}/TraceSessions", traces, Plane.WORKSPACE),
]
