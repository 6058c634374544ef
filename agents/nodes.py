"""The Python nodes of a flow folder as functions, with their connections and literals filled in."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from agents import promptflow_names
from agents.failures import Failed
from agents.flow_file import Flow, Node, Reference
from agents.promptflow_names import Connection
from agents.request_inputs import CONVERSIONS

TYPES = {int: "int", float: "double", bool: "bool", str: "string", list: "list"}


class Bound(NamedTuple):
    """A node, and what to call with the arguments that refer to inputs and other nodes."""

    node: Node
    call: partial[Any]

    def connection(self) -> Connection | None:
        """The connection that the node is called with, if it has one."""
        given = self.call.keywords.values()
        return next((value for value in given if isinstance(value, Connection)), None)

    def references(self) -> dict[str, Reference]:
        return {name: value for name, value in self.node.arguments.items() if isinstance(value, Reference)}


def load_nodes(flow: Flow, connections: Mapping[str, Connection]) -> list[Bound]:
    """Import the flow's node files, which import each other by bare names. Raises Failed.

    `connections` are by their names in the flow file. A process serves one flow: its files stay importable.
    """
    promptflow_names.install()
    if str(flow.folder) not in sys.path:
        sys.path.insert(0, str(flow.folder))
    return [_bound(node, _function(flow, node), connections) for node in flow.nodes]


def _function(flow: Flow, node: Node) -> Callable[..., Any]:
    functions = [
        value
        for value in vars(_module(flow, node)).values()
        if callable(value) and hasattr(value, promptflow_names.MARK)
    ]
    if len(functions) != 1:
        raise Failed(f"{node.file}: a node's file has one function with @tool; here are {len(functions)}")
    return functions[0]


def _module(flow: Flow, node: Node) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{flow.name}.{node.name}", flow.folder / node.file)
    assert spec and spec.loader  # noqa: S101 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bound(node: Node, function: Callable[..., Any], connections: Mapping[str, Connection]) -> Bound:
    """Literals become what the function says it takes; empty ones are left out, for its own defaults."""
    expected = inspect.get_annotations(function, eval_str=True)
    literals = {
        name: _literal(value, expected.get(name), connections)
        for name, value in node.arguments.items()
        if not isinstance(value, Reference) and value not in (None, "")
    }
    return Bound(node, partial(function, **literals))


def _literal(value: Any, expected: Any, connections: Mapping[str, Connection]) -> Any:
    if isinstance(expected, type) and issubclass(expected, Connection):
        if value not in connections:
            raise Failed(f"there is no connection '{value}'")
        return connections[value]
    return CONVERSIONS[TYPES[expected]](value) if expected in TYPES else value
