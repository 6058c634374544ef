"""A flow as Prompt flow uploads it: a folder of its own with the included files in it.

Flows are run, served and built from such copies: Prompt flow writes inputs, outputs and metadata into the
folder it is given, and the packaged one may be read-only.
"""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from phi3flow.core.children import module_command
from phi3flow.core.errors import BadInput, nearest

FLOWS = ("chat", "compare", "grade")
DAG = "flow.dag.yaml"


def resolve_flow(name: str, target: Path, *, connection: str | None = None) -> Path:
    """Copy the flow `name` into the new folder `target` and return it; `connection` replaces the flow's own.

    One flow thus answers from several endpoints: a request cannot choose the connection, a copy can.
    Raises BadInput for an unknown flow.
    """
    if name not in FLOWS:
        raise BadInput(f"unknown flow '{name}'", hint=nearest(name, FLOWS))
    with as_file(files("flows") / name) as source:
        return resolve_folder(source, target, connection=connection)


def resolve_folder(source: Path, target: Path, *, connection: str | None = None) -> Path:
    """The same for a flow folder of anybody's. Raises BadInput for one that the cloud could not read."""
    _check_dag(source)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__*__*", ".*"))
    for include in _rewrite_dag(target / DAG, connection):
        if not (source / include).exists():
            raise BadInput(
                f"{source / DAG}: additional_includes: {include} does not exist",
                hint="correct the path, which is relative to the flow's folder",
            )
        copy = shutil.copytree if (source / include).is_dir() else shutil.copy
        copy(source / include, target / Path(include).name)
    return target


def _check_dag(source: Path) -> None:
    if (source / DAG).is_file():
        return
    others = [
        path.name for path in sorted(source.glob("*.y*ml")) if "dag" in path.name or "flow" in path.name
    ]
    if others:
        raise BadInput(
            f"{source / others[0]}: a flow's file is called {DAG}, and the cloud finds it by no other name",
            hint=f"mv {source / others[0]} {source / DAG}",
        )
    raise BadInput(f"{source}: no {DAG} in it, so it is no flow", hint=f"known flows: {', '.join(FLOWS)}")


def _rewrite_dag(path: Path, connection: str | None) -> list[str]:
    """Drop `additional_includes` from the flow file and return what it named."""
    from ruamel.yaml import YAML

    yaml = YAML()
    dag = yaml.load(path)
    includes: list[str] = list(dag.pop("additional_includes", None) or [])
    for node in dag["nodes"] if connection else []:
        if "connection" in node["inputs"]:
            node["inputs"]["connection"] = connection
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(dag, stream)
    return includes


def connections_of(folder: Path) -> list[str]:
    """The connections that a flow's nodes name."""
    from ruamel.yaml import YAML

    dag = YAML(typ="safe").load(folder / DAG)
    named = {(node.get("inputs") or {}).get("connection") for node in dag["nodes"]}
    return sorted(name for name in named if name)


def serve_command(folder: Path, port: int) -> list[str]:
    """The command line that serves a resolved flow on loopback; it needs `promptflow_home.environment`.

    `pf flow serve` has no authentication and allows every origin, hence loopback. The flask engine, because
    fastapi's ends a stream that broke as if it were complete.
    """
    return module_command(
        "promptflow._cli.pf",
        *("flow", "serve", "--source", folder, "--host", "127.0.0.1", "--port", port),
        *("--engine", "flask", "--skip-open-browser"),
    )
