"""From what a person names to files and data sets: a file, a folder, a pattern, or a hub id."""

import glob
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.chats.files import hub
from phi3flow.chats.files.containers import container_of
from phi3flow.chats.files.record import Record, Records
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import MANIFEST, sha256_of

ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow")
PACKED = (".gz", ".bz2", ".xz", ".zip")
ORIGINS = "origins.jsonl"  # which prepare writes beside its splits
_NO_ROWS = {
    MANIFEST,
    ORIGINS,
    "dataset_info.json",
    "state.json",
    "dataset_dict.json",
}  # beside rows, in data folders


class Source(NamedTuple):
    """A file or data set with its hash. Each call of `records` starts at the first row.

    `left_out` names what in it was not read; it is complete when `records` has ended.
    """

    kind: str
    name: str
    sha256: str
    container: str
    records: Callable[[], Records]
    left_out: list[str]


class Found(NamedTuple):
    """The files of a source, and those of its folder that hold no rows by their names."""

    files: list[Path]
    left_out: list[str]


def open_sources(source: str, kind: str = "chats", columns: frozenset[str] = frozenset()) -> list[Source]:
    """Find and hash the files or the hub data set; `kind` is its name in the manifest.

    Raises BadInput if there is none, Phi3flowError if the hub cannot be reached.
    """
    if not Path(source).exists() and hub.looks_like_id(source):
        data = hub.load(source)
        return [Source(kind, source, hub.sha256_of_rows(data), "hub", lambda: _hub_records(data), [])]
    found = files_of(source)
    opened = [_open_file(path, kind, columns) for path in found.files]
    opened[0].left_out.extend(found.left_out)
    return opened


def files_of(source: str) -> Found:
    """The files that a path, a folder or a pattern names, sorted. Raises BadInput if there is none."""
    path = Path(source)
    if path.is_file():
        return Found([path], [])
    if path.is_dir():
        return _files_in(path)
    matched = [Path(name) for name in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207 - absolute too
    if files := [each for each in matched if each.is_file()]:
        return Found(files, [])
    raise BadInput(
        f"{source}: no such file", hint=f"give a file, a folder, or a hub id such as {hub.EXAMPLE}"
    )


def _files_in(folder: Path) -> Found:
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path, folder)]
    files = [
        path for path in inside if path.suffix.lower() in (*ENDINGS, *PACKED) and path.name not in _NO_ROWS
    ]
    if not files:
        hint = f"name its files: {shlex.quote(str(folder))}/*" if inside else "give a file of chats"
        raise BadInput(
            f"{folder}: a folder without files of rows ({' '.join((*ENDINGS, *PACKED))})", hint=hint
        )
    return Found(files, [str(path) for path in inside if path not in files and path.name not in _NO_ROWS])


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _open_file(path: Path, kind: str, columns: frozenset[str]) -> Source:
    try:
        container = container_of(path, columns)
        digest = sha256_of(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    return Source(kind, str(path), digest, container.name, container.records, container.left_out)


def _hub_records(rows: Iterable[dict[str, Any]]) -> Iterator[Record]:
    yield from (Record(number, row) for number, row in enumerate(rows, 1))
