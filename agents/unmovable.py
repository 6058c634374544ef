"""What of a flow folder Agent Framework cannot take over as it is: where it stands, and what replaces it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.promptflow_names import NAMES
from agents.request_inputs import CONVERSIONS
from phi3flow.core.flow_folder import DAG

OF_A_NODE = {
    "llm": "ask in a Python node: with phi3_contract, or the framework's OpenAIChatCompletionClient",
    "custom_llm": "call the package's function in a Python node",
    "prompt": "render the template in a Python node: jinja2.Template(text).render(...)",
}
OF_A_KEY = {
    "activate": "decide inside the node, and return None",
    "skip": "decide inside the node, and return None",
    "use_variants": "keep one variant in the node; compare others with phi3flow compare --flow",
}


class Unmovable(NamedTuple):
    """`stops` where the flow cannot be served at all; else only what calls this part fails."""

    file: Path
    line: int
    what: str
    instead: str
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}: {self.instead}"


def unmovable(folder: Path) -> list[Unmovable]:
    """Everything in a resolved flow folder that has no counterpart, in the order of its files."""
    from ruamel.yaml import YAML

    dag = YAML().load(folder / DAG)
    return [
        *_of_inputs(folder, dag),
        *(each for node in dag.get("nodes") or [] for each in _of_node(folder, node)),
    ]


def _of_inputs(folder: Path, dag: Any) -> Iterator[Unmovable]:
    for name, said in (dag.get("inputs") or {}).items():
        if said["type"] not in CONVERSIONS:
            instead = "pass it as object or string, and read it in a node"
            yield Unmovable(
                folder / DAG, _line(said, "type"), f"input '{name}' is of type {said['type']}", instead
            )


def _of_node(folder: Path, node: Any) -> Iterator[Unmovable]:
    name, kind, source = node["name"], node.get("type", "python"), node.get("source") or {}
    if kind != "python":
        instead = OF_A_NODE.get(kind, "do its work in a Python node")
        yield Unmovable(folder / DAG, _line(node, "type"), f"node '{name}' is of type {kind}", instead)
    elif source.get("type", "code") != "code":
        what = f"node '{name}' is the tool {source.get('tool')} of a package"
        yield Unmovable(
            folder / DAG, _line(node, "source"), what, "call the package's function in a Python node"
        )
    else:
        yield from _of_file(folder / source["path"], folder)
    for key, instead in OF_A_KEY.items():
        if key in node:
            yield Unmovable(folder / DAG, _line(node, key), f"node '{name}' has '{key}'", instead)


def _of_file(file: Path, folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Unmovable]:
    """Imports of Prompt flow's names that have no stand-in, in a node's file and in those that it imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    at_once = set(_imports(tree.body))
    for statement in (found for found in ast.walk(tree) if isinstance(found, ast.Import | ast.ImportFrom)):
        for module, name in _imported(statement):
            helper = folder / f"{module}.py"
            if helper.is_file() and helper not in seen:
                yield from _of_file(helper, folder, seen | {file, helper})
            elif module.split(".")[0] == "promptflow" and not _stands_in(module, name):
                what = f"imports {module}{f'.{name}' if name else ''}"
                instead = "ask with phi3_contract, or do it in plain Python"
                yield Unmovable(file, statement.lineno, what, instead, stops=statement in at_once)


def _imports(body: list[ast.stmt]) -> list[ast.stmt]:
    return [statement for statement in body if isinstance(statement, ast.Import | ast.ImportFrom)]


def _imported(statement: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
    """The modules and the names in them that a statement imports."""
    if isinstance(statement, ast.ImportFrom):
        return [(statement.module or "", each.name) for each in statement.names]
    return [(each.name, "") for each in statement.names]


def _stands_in(module: str, name: str) -> bool:
    return module in NAMES and (not name or name in NAMES[module] or f"{module}.{name}" in NAMES)


def _line(mapping: Mapping[str, Any], key: str) -> int:
    """The line of a key in the flow file, counted from 1."""
    return int(mapping.lc.key(key)[0]) + 1  # type: ignore[attr-defined]
