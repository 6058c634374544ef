"""What the nodes of a flow import from `promptflow`, for an environment without it.

A Python node needs little of Prompt flow: a decorator, connections as data, a metric, exceptions. These stand
in for it, under the same names, so that a flow's files stay as they are.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

MARK = "__phi3flow_tool__"  # on the function of a node
metrics: dict[str, float] = {}  # what `log_metric` was told


def tool(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    """Mark the function of a node; `@tool` and `@tool(...)`."""
    if function is None:
        return tool
    setattr(function, MARK, True)
    return function


def trace(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def log_metric(key: str, value: float) -> None:
    metrics[key] = value


class Connection:
    """A stored connection: `configs`, and `secrets`, which nothing prints. Both are attributes, too."""

    def __init__(self, configs: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self.configs, self.secrets = dict(configs), dict(secrets)

    def __getattr__(self, name: str) -> str:
        values = {**self.__dict__.get("secrets", {}), **self.__dict__.get("configs", {})}
        if name in values:
            return values[name]
        raise AttributeError(f"the connection has no '{name}'")


class CustomConnection(Connection):
    pass


class OpenAIConnection(Connection):
    pass


class AzureOpenAIConnection(Connection):
    pass


class ServerlessConnection(Connection):
    pass


class CognitiveSearchConnection(Connection):
    pass


class SerpConnection(Connection):
    pass


class PromptflowException(Exception):
    """Prompt flow passes these on as they are; it wraps all others in the name of their node."""

    code = "SystemError"

    def __init__(self, message: str = "", **_: Any) -> None:
        super().__init__(message)
        self.message = message


class SystemErrorException(PromptflowException):
    pass


class UserErrorException(PromptflowException):
    code = "UserError"


class ValidationException(UserErrorException):
    pass


CONNECTIONS: dict[str, type[Connection]] = {
    kind.__name__: kind
    for kind in (
        CustomConnection,
        OpenAIConnection,
        AzureOpenAIConnection,
        ServerlessConnection,
        CognitiveSearchConnection,
        SerpConnection,
    )
}
_EXCEPTIONS = (PromptflowException, SystemErrorException, UserErrorException, ValidationException)
NAMES: dict[str, dict[str, Any]] = {
    "promptflow": {"tool": tool, "log_metric": log_metric},
    "promptflow.core": {"tool": tool, "log_metric": log_metric},
    "promptflow.connections": dict(CONNECTIONS),
    "promptflow.exceptions": {kind.__name__: kind for kind in _EXCEPTIONS},
    "promptflow.tracing": {"trace": trace},
}


def install() -> None:
    """Make the names importable in this process."""
    for name, values in NAMES.items():
        module = types.ModuleType(name, f"Stand-ins of phi3flow for the names of {name} that nodes import.")
        module.__path__ = []
        vars(module).update(values)
        sys.modules[name] = module
        package, _, last = name.rpartition(".")
        if package:
            setattr(sys.modules[package], last, module)
