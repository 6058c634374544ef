"""Routes as Azure's reference writes them: a method, a host and a path template."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING

from azure_emulator.front.wire import Reply, Request

if TYPE_CHECKING:
    from azure_emulator.cloud import Cloud

Handler = Callable[["Cloud", Request], Reply]


class Plane(Enum):
    """A host of Azure's, as a pattern."""

    LOGIN = "login.microsoftonline.com"
    MANAGEMENT = "management.azure.com"
    WORKSPACE = "*.api.azureml.ms"
    BLOB = "*.blob.core.windows.net"
    FILE = "*.file.core.windows.net"
    SCORING = "*.inference.ml.azure.com"
    CONTROL = "127.0.0.1"

    @classmethod
    def of(cls, host: str) -> "Plane | None":
        return next((plane for plane in cls if fnmatch(host, plane.value)), None)


@dataclass(frozen=True)
class Route:
    """`{name}` matches one path segment, `{name*}` the rest; letter case does not count, as in ARM.

    Where `serial` is set, the store is locked while the handler runs: ARM's answers are small and must not
    see half of another request, while blobs and answers of a model stream beside each other.
    """

    method: str
    plane: Plane
    template: str
    handler: Handler
    serial: bool = True

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)(\*?)\}", self.template)
        text = re.escape(parts[0])
        for name, star, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            text += f"(?P<{name}>{'.*' if star else '[^/]+'})" + re.escape(literal)
        return re.compile(text + "/?", re.IGNORECASE)

    def names(self, path: str) -> dict[str, str] | None:
        match = self.pattern.fullmatch(path)
        return match.groupdict() if match else None


@dataclass(frozen=True)
class Found:
    route: Route
    request: Request


@dataclass(frozen=True)
class Router:
    routes: Iterable[Route]
    _by_place: dict[tuple[str, Plane], list[Route]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for route in self.routes:
            self._by_place.setdefault((route.method, route.plane), []).append(route)

    def find(self, request: Request) -> Found | None:
        """The first route that fits, in the order of the table."""
        plane = Plane.of(request.host)
        for route in self._by_place.get((request.method, plane), []) if plane else []:
            names = route.names(request.path)
            if names is not None:
                return Found(route, replace(request, names=names))
        return None
