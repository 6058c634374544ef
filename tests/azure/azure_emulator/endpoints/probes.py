"""Probes as deployments declare them, and how long they wait altogether."""

import re
from dataclasses import dataclass

from azure_emulator.front.wire import Document

SECONDS = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?")


@dataclass(frozen=True)
class Probe:
    """Seconds; the defaults are Azure's."""

    initial_delay: float = 10.0
    period: float = 10.0
    failure_threshold: int = 30

    @classmethod
    def of(cls, declared: Document | None) -> "Probe":
        declared = declared or {}
        return cls(
            seconds(declared.get("initialDelay"), cls.initial_delay),
            seconds(declared.get("period"), cls.period),
            int(declared.get("failureThreshold") or cls.failure_threshold),
        )

    @property
    def patience(self) -> float:
        """How long a container may take to become ready."""
        return self.initial_delay + self.period * self.failure_threshold


def seconds(duration: str | None, default: float) -> float:
    """Of an ISO 8601 duration without days."""
    match = SECONDS.fullmatch(duration or "")
    if not match:
        return default
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return (hours * 60 + minutes) * 60 + rest
