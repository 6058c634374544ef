"""Long-running operations: begun by a request, polled by the client, finished by time or by a worker."""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from azure_emulator.arm.services import STATUSES, Service
from azure_emulator.arm.store import Store, now
from azure_emulator.client.tokens import SUBSCRIPTION
from azure_emulator.front.routing import Handler, Plane, Route
from azure_emulator.front.wire import Document, Reply, Request, not_found

POLL_MILLISECONDS = "50"  # a Retry-After of 0 makes the SDK sleep 30 s
RESULT = "&type=location"
LOCATION = f"/subscriptions/{SUBSCRIPTION}/providers/{{provider}}/locations/{{location}}"
DEPLOYMENT = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Resources/deployments"


@dataclass(frozen=True)
class Fate:
    """What a fault has in store for the next operation: to hang, or to fail with `code` and `message`."""

    hang: bool = False
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Ending:
    """What becomes of the resource once the operation is over; stored with it, to survive a restart.

    `beside` are resources that the operation makes as well: they succeed or fail with it.
    """

    resource_id: str
    delete: bool = False
    beside: Sequence[str] = ()


class Operations:
    """Every one lasts `phase_seconds`, unless the caller finishes it (`timed=False`)."""

    def __init__(self, store: Store, phase_seconds: float) -> None:
        self._store = store
        self._phase_seconds = phase_seconds
        self._timers: list[threading.Timer] = []
        self.next_fate: Fate | None = None

    def close(self) -> None:
        """No operation ends after this; those under way end when the emulator starts again."""
        for timer in self._timers:
            timer.cancel()
        for timer in self._timers:
            timer.join()

    def begin(self, ending: Ending, *, timed: bool = True) -> str:
        """The operation's id. A fault may make it hang or fail instead."""
        fate, self.next_fate = self.next_fate, None
        name = str(uuid.uuid4())
        record = {
            "status": "InProgress",
            "began": now(),
            "ending": vars(ending),
            "hung": bool(fate and fate.hang),
            "timed": timed,
            "fail": [fate.code, fate.message] if fate and fate.code else None,
        }
        self._store.write("operations", name, record)
        self._schedule(name, record)
        return name

    def resume(self) -> None:
        """After a restart: what time was to finish is finished now."""
        for name in self._store.keys("operations"):
            record = self._store.read("operations", name)
            if record and record["status"] == "InProgress":
                self._schedule(name, record)

    def release(self) -> list[tuple[str, str]]:
        """Let those that hang go on. Returns operation and resource of those that somebody has to finish."""
        left = []
        for name in self._store.keys("operations"):
            record = self._store.read("operations", name)
            if record and record["hung"]:
                record["hung"] = False
                self._store.write("operations", name, record)
                self._schedule(name, record)
                if not record["timed"]:
                    left.append((name, str(record["ending"]["resource_id"])))
        return left

    def is_decided(self, name: str) -> bool:
        """Whether a fault says how it ends."""
        record = self._store.read("operations", name)
        return bool(record and (record["hung"] or record["fail"]))

    def finish(self, name: str, error: tuple[str, str] | None = None) -> None:
        """Apply the ending; with `error`, (code, message), leave the resource behind as Failed."""
        with self._store.lock:
            record = self._store.read("operations", name)
            if record is None or record["status"] != "InProgress":
                return
            ending = Ending(**record["ending"])
            record |= {"status": "Failed" if error else "Succeeded", "ended": now()}
            if error:
                record["error"] = {"code": error[0], "message": error[1]}
            self._apply(ending, failed=bool(error))
            self._store.write("operations", name, record)

    def _apply(self, ending: Ending, *, failed: bool) -> None:
        if ending.delete and not failed:
            self._store.delete(ending.resource_id)
            return
        for resource_id in [ending.resource_id, *ending.beside]:
            if self._store.get(resource_id) is not None:
                with self._store.changing(resource_id) as properties:
                    properties["provisioningState"] = "Failed" if failed else "Succeeded"

    def _schedule(self, name: str, record: Document) -> None:
        if record["hung"] or not (record["timed"] or record["fail"]):
            return
        error = tuple(record["fail"]) if record["fail"] else None
        timer = threading.Timer(self._phase_seconds, self.finish, args=(name, error))
        timer.daemon = True
        self._timers = [timer, *(one for one in self._timers if one.is_alive())]
        timer.start()

    def headers(
        self, name: str, *, service: Service, location: str, made: str = "", marker: str = ""
    ) -> dict[str, str]:
        """Where to follow an operation, as its service says it.

        `made` is the address of the resource that a PUT makes; `marker` the id of its workspace.
        """
        place = LOCATION.format(provider=service.provider, location=location or "global")
        called = f"{service.prefix}:{marker}:{name}" if service.prefix else name
        asks = RESULT if service.result == service.status else ""
        result = _address(f"{place}/{service.result}/{called}") + asks if service.result else ""
        headers = {
            "Azure-AsyncOperation": _address(f"{place}/{service.status}/{called}"),
            "Location": _address(made) if made and service.made_at else result,
            "x-ms-async-operation-timeout": service.timeout,
            "x-ms-retry-after-ms": POLL_MILLISECONDS,
        }
        return {header: value for header, value in headers.items() if value}

    def status(self, request: Request, service: Service) -> Reply:
        if f"&type={request.query.get('type')}" == RESULT:
            return self.result(request)
        record = self._record(request)
        headers = {"x-ms-retry-after-ms": POLL_MILLISECONDS} if record["status"] == "InProgress" else {}
        return Reply(200, service.answer(request["operation"], request.path, record), headers)

    def deployment_status(self, request: Request) -> Reply:
        """ARM's deployments say nothing but the status, in a word of their own, and why they failed."""
        record = self._record(request)
        status = "Running" if record["status"] == "InProgress" else record["status"]
        told = {"status": status, **({"error": record["error"]} if "error" in record else {})}
        return Reply(200, told, {"x-ms-retry-after-ms": POLL_MILLISECONDS})

    def result(self, request: Request) -> Reply:
        record = self._record(request)
        if record["status"] == "InProgress":
            location = f"https://{request.host}{request.target}"
            return Reply(202, None, {"Location": location, "x-ms-retry-after-ms": POLL_MILLISECONDS})
        if "error" in record:
            return Reply(409, {"error": record["error"]})
        resource = self._store.get(record["ending"]["resource_id"])
        return Reply(200, resource) if resource else Reply(204)

    def _record(self, request: Request) -> Document:
        record = self._store.read("operations", request["operation"].rsplit(":", 1)[-1])
        if record is None:
            raise not_found(request.path)
        return record


def _address(path: str) -> str:
    return f"https://{Plane.MANAGEMENT.value}{path}?api-version=2024-04-01"


def _status_of(service: Service) -> Handler:
    return lambda cloud, request: cloud.operations.status(request, service)


_PLACE = LOCATION.replace(SUBSCRIPTION, "{subscription}").replace("{{", "{").replace("}}", "}")
ROUTES = [
    *(
        Route("GET", Plane.MANAGEMENT, f"{_PLACE}/{one.status}/{{operation}}", _status_of(one))
        for one in STATUSES
    ),
    *(
        Route(
            "GET",
            Plane.MANAGEMENT,
            f"{_PLACE}/{one.result}/{{operation}}",
            lambda c, r: c.operations.result(r),
        )
        for one in STATUSES
        if one.result not in {"", one.status}
    ),
    Route(
        "GET",
        Plane.MANAGEMENT,
        f"{DEPLOYMENT}/{{deployment}}/operationStatuses/{{operation}}",
        lambda c, r: c.operations.deployment_status(r),
    ),
]
