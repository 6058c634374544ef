"""The manifest beside every output: the command, its inputs and its outputs.

Manifests are linked by content: an input of one has the sha256 of an output of another, so the chain
data -> model -> report survives renaming and copying. A manifest contains no secret, because no command line
does.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json

MANIFEST = "manifest.json"
SCHEMA = "phi3flow/manifest/1"
_NO_PROGRAMS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull}


@dataclass(frozen=True)
class Artifact:
    """A file or folder; `sha256` is that of the bytes, or of the folder's sorted list of files."""

    kind: str
    path: str
    sha256: str

    @classmethod
    def of(cls, kind: str, path: Path) -> "Artifact":
        return cls(kind, path.as_posix(), sha256_of(path))


def sha256_of(path: Path) -> str:
    """Content hash of a file, or of all files below a folder.

    Ignores manifests, which contain this hash, and hidden files, where hub downloads keep timestamps.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    listing = "".join(
        f"{sha256_of(path / file)}  {file.as_posix()}\n"
        for file in files
        if file.name != MANIFEST and not any(part.startswith(".") for part in file.parts)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def write_manifest(
    folder: Path,
    kind: str,
    *,
    inputs: Sequence[Artifact],
    outputs: Sequence[Artifact],
    seed: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write `manifest.json` into `folder`; `details` are more fields for this kind of output."""
    path = folder / MANIFEST
    write_json(
        path,
        {
            "schema": SCHEMA,
            "kind": kind,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["phi3flow", *sys.argv[1:]]),
            "commit": commit(),
            "seed": seed,
            "inputs": [asdict(artifact) for artifact in inputs],
            "outputs": [asdict(artifact) for artifact in outputs],
            **(details or {}),
        },
    )
    return path


def new_output(path: Path) -> Path:
    """Return `path`. Raises BadInput if it exists, so that nothing is overwritten."""
    if path.exists():
        raise BadInput(f"{path} exists", hint=f"remove {path}, or write elsewhere")
    return path


def result_file(path: Path, *, force: bool) -> Path:
    """The same for a result, which `--force` replaces: the old file stays until the new one is complete."""
    if path.exists() and not force:
        raise BadInput(f"{path} exists", hint="add --force to replace it, or choose another folder")
    if path.exists():
        say(f"replacing {path}")
    return path


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None. Raises BadInput for a file that is none."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    if not path.is_file():
        raise BadInput(f"{path}: not a file", hint=f"make {folder} again")
    try:
        manifest = read_json(path)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}", hint=f"make {folder} again") from None
    if not _is_manifest(manifest):
        raise BadInput(f"{path}: not a manifest", hint=f"make {folder} again")
    return manifest


def _is_manifest(found: Any) -> bool:
    """Whether it is an object whose inputs and outputs, if it has any, are artifacts."""
    if not isinstance(found, dict):
        return False
    lists = [found.get(name, []) for name in ("inputs", "outputs")]
    return all(isinstance(one, list) and all(map(_is_artifact, one)) for one in lists)


def _is_artifact(found: Any) -> bool:
    names = Artifact.__dataclass_fields__
    return isinstance(found, dict) and all(isinstance(found.get(name), str) for name in names)


def commit() -> str | None:
    """Git commit of the current folder, with '+' if files have changed; None outside git, or without it.

    The settings of a repository name programs that git runs to see whether files have changed. A folder that
    somebody downloaded may name any, so none is run.
    """
    named = _git("config", "--null", "--name-only", "--get-regexp", r"^filter\.").split("\0")[:-1]
    filters = {name: "false" if name.endswith(".required") else "" for name in named}
    describe = ("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    return _git(*describe, settings=_NO_PROGRAMS | filters).strip() or None


def _git(*arguments: str, settings: Mapping[str, str] = _NO_PROGRAMS) -> str:
    """What git prints under these settings; nothing where it fails or is not installed."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_NO_LAZY_FETCH": "1"}
    for i, (name, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    try:
        done = subprocess.run(
            ["git", *arguments], env=os.environ | variables, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout
