"""What a flow's `flow.dag.yaml` says: inputs, outputs, and the nodes between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.core.flow_folder import DAG

INPUT_PREFIXES = ("inputs.", "flow.")


class Reference(NamedTuple):
    """`${inputs.NAME}` if `node` is empty, else `${NODE.output}`; `path` is what stands behind `output`."""

    node: str
    name: str
    path: str = ""


class Input(NamedTuple):
    type: str
    default: Any
    description: str
    is_chat_input: bool
    is_chat_history: bool


class Output(NamedTuple):
    """`value` is a Reference, or a literal."""

    type: str
    value: Any
    description: str
    is_chat_output: bool
    evaluation_only: bool


class Node(NamedTuple):
    """A Python node: its file, and what its function gets, by argument: a Reference or a literal."""

    name: str
    file: str
    arguments: Mapping[str, Any]
    aggregation: bool

    def asks(self) -> list[str]:
        """The nodes whose outputs this one gets, in the order of its arguments."""
        values = [value for value in self.arguments.values() if isinstance(value, Reference)]
        return list(dict.fromkeys(value.node for value in values if value.node))


class Flow(NamedTuple):
    """`nodes` are in the file's order; `name` is that of the folder."""

    name: str
    folder: Path
    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    nodes: tuple[Node, ...]

    def line_nodes(self) -> list[Node]:
        """The nodes that run for each request; the others aggregate the lines of a batch."""
        return [node for node in self.nodes if not node.aggregation]


def read_flow(folder: Path) -> Flow:
    """Read a resolved flow folder. Raises KeyError or a YAML error: `unmovable.problems_of` says more."""
    from ruamel.yaml import YAML

    dag = YAML(typ="safe").load(folder / DAG)
    return Flow(
        name=folder.resolve().stem,
        folder=folder.resolve(),
        inputs={name: _input(said) for name, said in (dag.get("inputs") or {}).items()},
        outputs={name: _output(said) for name, said in (dag.get("outputs") or {}).items()},
        nodes=tuple(_node(said) for said in dag.get("nodes") or []),
    )


def reference(value: Any) -> Any:
    """A Reference where `value` is `${...}`; else `value` itself, which is a literal."""
    if not isinstance(value, str) or not (value.startswith("${") and value.endswith("}")):
        return value
    inner = value[2:-1]
    for prefix in INPUT_PREFIXES:
        if inner.startswith(prefix):
            return Reference("", inner.removeprefix(prefix))
    node, _, behind = inner.partition(".")
    section, _, path = behind.partition(".")
    return Reference(node, section or "output", path)


def _input(said: Mapping[str, Any]) -> Input:
    return Input(
        said["type"],
        said.get("default"),
        said.get("description") or "",
        bool(said.get("is_chat_input")),
        bool(said.get("is_chat_history")),
    )


def _output(said: Mapping[str, Any]) -> Output:
    return Output(
        said["type"],
        reference(said.get("reference", "")),
        said.get("description") or "",
        bool(said.get("is_chat_output")),
        bool(said.get("evaluation_only")),
    )


def _node(said: Mapping[str, Any]) -> Node:
    arguments = {name: reference(value) for name, value in (said.get("inputs") or {}).items()}
    return Node(said["name"], said["source"]["path"], arguments, bool(said.get("aggregation")))
