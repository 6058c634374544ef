"""The emulator's own routes, on http://127.0.0.1:PORT/emulator/ without the proxy: for tests and people."""

from dataclasses import asdict

from azure_emulator.cloud import Cloud
from azure_emulator.front.faults import Fault
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.wire import Reply, Request, error_body
from azure_emulator.ml import quota

PREFIX = "/emulator"


def health(cloud: Cloud, request: Request) -> Reply:
    return Reply(200, {"status": "ok"})


def resources(cloud: Cloud, request: Request) -> Reply:
    """The ids of everything that exists."""
    found = [cloud.store.get(key) for key in cloud.store.keys("resources")]
    return Reply(200, [item["id"] for item in found if item])


def requests(cloud: Cloud, request: Request) -> Reply:
    """The log so far; `?unknown=1` leaves only what is not emulated."""
    entries = [
        asdict(entry) for entry in cloud.log.entries if entry.unknown or "unknown" not in request.query
    ]
    return Reply(200, entries)


def put_faults(cloud: Cloud, request: Request) -> Reply:
    """`{"faults": [...]}` takes the place of those set before; counting starts anew, what hangs goes on."""
    try:
        faults = [Fault.parse(item) for item in request.json.get("faults", [])]
    except (TypeError, ValueError) as error:
        return Reply(400, error_body("BadFault", str(error)))
    cloud.faults.set(faults)
    for operation, deployment in cloud.operations.release():
        cloud.containers.start(deployment, operation)
    return Reply(200, {"faults": [asdict(fault) for fault in faults]})


def put_quota(cloud: Cloud, request: Request) -> Reply:
    """`{family: cores}` over the limits that the emulator starts with."""
    quota.set_limits(cloud, {str(name): int(cores) for name, cores in request.json.items()})
    return Reply(200, quota.limits(cloud))


ROUTES = [
    Route("GET", Plane.CONTROL, f"{PREFIX}/health", health),
    Route("GET", Plane.CONTROL, f"{PREFIX}/resources", resources),
    Route("GET", Plane.CONTROL, f"{PREFIX}/requests", requests),
    Route("PUT", Plane.CONTROL, f"{PREFIX}/faults", put_faults),
    Route("PUT", Plane.CONTROL, f"{PREFIX}/quota", put_quota),
]
