"""A resolved flow: a copy of the flow's folder that contains the included files, as Prompt flow uploads it.

Flows are run, served and built from such copies, because Prompt flow writes inputs, outputs and metadata into
the flow's folder, and the packaged one may be read-only.
"""

import shlex
import shutil
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.files import leads_out
from phi3flow.core.validation import problems_of

FLOWS = ("chat", "compare", "grade")
SHIPPED = (*FLOWS, "tutorial")  # the last for clients of Microsoft's tutorials alone
DAG = "flow.dag.yaml"
_HIDDEN = shutil.ignore_patterns("__pycache__", ".*")


class _Inputs(BaseModel):
    connection: str | None = None


class _Node(BaseModel):
    inputs: _Inputs | None = None


class _Dag(BaseModel):
    """As much of a flow file as is read here; Prompt flow checks the rest."""

    nodes: list[_Node] = Field(description="what the flow does")
    inputs: dict[str, dict[str, Any] | None] | None = None
    outputs: dict[str, Any] | None = None
    additional_includes: list[Annotated[str, Field(min_length=1)]] | None = None


def resolve_flow(name: str, target: Path, *, connection: str | None = None, system: str = "") -> Path:
    """Copy the flow `name` into the new folder `target` and return it. `connection` replaces the flow's own.

    A request cannot choose the connection, so every endpoint gets a copy of the flow. `system` becomes the
    system prompt of requests that name none. Raises BadInput for an unknown flow.
    """
    if name not in SHIPPED:
        raise BadInput(f"unknown flow '{name}'", hint=nearest(name, SHIPPED))
    with as_file(files("flows") / name) as source:
        return resolve_folder(source, target, connection=connection, system=system)


def resolve_folder(source: Path, target: Path, *, connection: str | None = None, system: str = "") -> Path:
    """The same for any flow folder. Raises BadInput for one that the cloud could not read.

    Also for a link or an include that leads out of the flow's folder and of the current one (of the packages,
    for our own flows): what is copied may be uploaded.
    """
    _check_dag(source)
    ours = Path(str(files("flows"))).parent
    project = Path.cwd() if leads_out(source, ours / "flows") else ours
    _check_links(source, source, project)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__*__*", ".*"))
    for include in _rewrite_dag(target / DAG, connection, system):
        _check_include(source, include, project)
        copy = partial(shutil.copytree, ignore=_HIDDEN) if (source / include).is_dir() else shutil.copy
        copy(source / include, target / Path(include).name)
    return target


def resolve_chat_flow(source: Path, target: Path, *, connection: str | None = None, system: str = "") -> Path:
    """The same for a person's own chat flow: `connection` stands in for the one that its nodes name.

    Raises BadInput for a flow that cannot be asked as the chat flow is, or that names several connections.
    """
    from ruamel.yaml import YAML

    _check_dag(source)
    dag = YAML(typ="safe").load(source / DAG) or {}
    for kind, name in (("inputs", "question"), ("outputs", "answer")):
        if name not in (dag.get(kind) or {}):
            raise BadInput(
                f"{source / DAG}: {kind}: '{name}' is missing: a chat asks 'question' and reads 'answer'",
                hint=f"rename it in {source / DAG}, and in the nodes that use it",
            )
    named = connections_of(source)
    if connection and len(named) > 1:
        raise BadInput(
            f"{source / DAG}: its nodes name several connections, and {connection} would stand in for all: "
            + ", ".join(named),
            hint="let its nodes name one connection, or leave RUN and --connection out",
        )
    return resolve_folder(source, target, connection=connection, system=system)


def _check_include(source: Path, include: str, project: Path) -> None:
    """Raise BadInput for an include that is not there, hidden, or outside of the project."""
    found, field = source / include, f"{source / DAG}: additional_includes: {include}"
    if not found.exists():
        raise BadInput(
            f"{field} does not exist", hint="correct the path, which is relative to the flow's folder"
        )
    hidden = any(part.startswith(".") for part in Path(include).parts if part != "..")
    if hidden or leads_out(found, source, project):
        where = "is hidden" if hidden else f"leads out of {project}"
        raise BadInput(f"{field} {where}", hint=f"copy it into {source}")
    _check_links(found, source, project)


def _check_links(folder: Path, source: Path, project: Path) -> None:
    """Raise BadInput for a link below `folder` that leads out: copied, it is the file that it leads to."""
    folders, seen = [folder], set[Path]()
    while folders:
        for path in filter(Path.is_symlink, folders.pop().rglob("*")):
            if leads_out(path, source, project):
                raise BadInput(
                    f"{path}: a link that leads out of {project}",
                    hint=f"put the file itself there, or remove the link: rm {shlex.quote(str(path))}",
                )
            if path.is_dir() and (end := path.resolve()) not in seen:
                seen.add(end)
                folders.append(end)


def _check_dag(source: Path) -> None:
    if (source / DAG).is_file():
        _check_content(source / DAG)
        return
    others = [
        path.name for path in sorted(source.glob("*.y*ml")) if "dag" in path.name or "flow" in path.name
    ]
    if others:
        raise BadInput(
            f"{source / others[0]}: the file of a flow must be called {DAG}",
            hint=f"mv {source / others[0]} {source / DAG}",
        )
    raise BadInput(
        f"{source}: not a flow folder: {DAG} is missing", hint=f"known flows: {', '.join(SHIPPED)}"
    )


def _check_content(path: Path) -> None:
    """Raise BadInput for a file that is not YAML, or whose parts are not what is read of them here."""
    from ruamel.yaml import YAML, YAMLError

    try:
        dag = YAML(typ="safe").load(path) or {}
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise BadInput(f"{path}: not valid YAML: {told}", hint=f"edit {path}") from None
    if not isinstance(dag, dict):
        raise BadInput(f"{path}: must have names and values, such as nodes", hint=f"edit {path}")
    try:
        _Dag.model_validate(dag)
    except ValidationError as error:
        problems = (f"{path}: {problem}" for problem in problems_of(_Dag, error))
        raise BadInput("\n".join(problems), hint=f"edit {path}") from None


def _rewrite_dag(path: Path, connection: str | None, system: str) -> list[str]:
    """Remove `additional_includes` from the flow file and return its paths."""
    from ruamel.yaml import YAML

    yaml = YAML()
    dag = yaml.load(path)
    includes: list[str] = list(dag.pop("additional_includes", None) or [])
    for node in dag["nodes"] if connection else []:
        if "connection" in (node.get("inputs") or {}):
            node["inputs"]["connection"] = connection
    if system and (asked := dag.get("inputs", {}).get("system")) is not None and not asked.get("default"):
        asked["default"] = system
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(dag, stream)
    return includes


def connections_of(folder: Path) -> list[str]:
    """The connections that a flow's nodes name."""
    from ruamel.yaml import YAML

    dag = YAML(typ="safe").load(folder / DAG)
    named = {(node.get("inputs") or {}).get("connection") for node in dag["nodes"]}
    return sorted(name for name in named if name)
