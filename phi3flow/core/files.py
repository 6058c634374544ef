"""Write files atomically: after a crash, a full disk or an exception the old file is still there."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, TextIO


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a temporary text file that replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def for_owner_alone() -> Iterator[None]:
    """What is created in the block, also by children, is for its owner alone: files 0600, folders 0700."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A new folder for its owner alone, removed at the end, and at the start if a killed run left it.

    Its name is fixed, so the caller holds the lock of the folder that it belongs to.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def leads_out(path: Path, *roots: Path) -> bool:
    """Whether a path, its links followed, ends outside of all these folders."""
    end = path.resolve()
    return not any(end.is_relative_to(root.resolve()) for root in roots)


def write_text(path: Path, text: str) -> None:
    write_texts({path: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write all of these files or, where the disk is full, none; the first one appears last."""
    with ExitStack() as stack:
        for path, text in texts.items():
            stream = stack.enter_context(replacing(path))
            stream.write(text)
            stream.flush()


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    write_text(path, as_json(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
