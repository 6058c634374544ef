"""Faults on a schedule: the nth request that matches gets one, the same in every run."""

import threading
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from typing import Any

KINDS = {
    "error": "answer with status, code and message (and Retry-After, where given) instead of doing anything",
    "drop": "close the connection without an answer",
    "signal": "send a signal to the process that asked, and close the connection",
    "delay": "wait some seconds, then go on",
    "hold_operation": "the long-running operation that the request starts never ends",
    "fail_operation": "the long-running operation that the request starts fails with code and message",
}


@dataclass(frozen=True)
class Fault:
    """What happens to the requests number nth, nth+1, ... (`times` of them; 0: all) of those that match.

    `route` is a template of the route table, or a pattern for the path such as `*/computes/*`. `drop` and
    `signal` happen before the request is carried out, or after it but before the answer.
    """

    kind: str
    method: str = "*"
    host: str = "*"
    route: str = "*"
    nth: int = 1
    times: int = 1
    when: str = "before"
    status: int = 500
    code: str = "InternalServerError"
    message: str = "The server encountered an internal error."
    retry_after: float = 0
    signal: str = "SIGKILL"
    seconds: float = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: {self.kind!r} is none of {', '.join(KINDS)}")
        if self.when not in {"before", "after"}:
            raise ValueError(f"when: {self.when!r} is neither before nor after")

    @classmethod
    def parse(cls, value: Any) -> "Fault":
        """Raise ValueError for anything but an object with these fields."""
        known = {spec.name for spec in fields(cls)}
        if not isinstance(value, dict) or "kind" not in value or set(value) - known:
            raise ValueError(f"a fault is an object with `kind` and any of {', '.join(sorted(known))}")
        return cls(**value)

    def matches(self, method: str, host: str, path: str, template: str) -> bool:
        return (
            self.method in {"*", method}
            and fnmatch(host, self.host)
            and (self.route in {"*", template} or fnmatch(path.lower(), self.route.lower()))
        )

    def due(self, count: int) -> bool:
        return count >= self.nth and (self.times == 0 or count < self.nth + self.times)


class Schedule:
    """The faults that are set, each with the number of requests that matched it so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: list[list[Any]] = []

    def set(self, faults: list[Fault]) -> None:
        with self._lock:
            self._counted = [[fault, 0] for fault in faults]

    def next_for(self, method: str, host: str, path: str, template: str) -> Fault | None:
        """Count the request for every fault; the first that is due happens."""
        happening = None
        with self._lock:
            for counted in self._counted:
                if counted[0].matches(method, host, path, template):
                    counted[1] += 1
                    if happening is None and counted[0].due(counted[1]):
                        happening = counted[0]
        return happening
