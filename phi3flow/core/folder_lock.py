"""One command at a time writes a folder; a second one is told who does.

The lock is a record lock on `.NAME.lock` beside the folder, or on `.lock` in it where nothing can be made
beside it. It ends with the process that holds it, however that ends, so nothing is left to repair.
"""

import fcntl
import functools
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from phi3flow.core.errors import BadInput

P = ParamSpec("P")
T = TypeVar("T")


class _Lock(NamedTuple):
    file: Path
    handle: int


# Record locks do not tell the threads of a process apart, so each process keeps its own list.
_writers: dict[Path, tuple[int]] = {}  # folder: the thread that writes it


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep every other process and thread from writing `folder`, which may not exist yet.

    The thread that holds it may take it again. Raises BadInput that names the process that writes there.
    Where no lock can be made, nothing can be written either, and the command says so itself.
    """
    place, me = folder.resolve(), (threading.get_ident(),)
    writer = _writers.setdefault(place, me)
    if writer != me:
        raise _busy(folder, _this_process())
    if writer is not me:
        yield
        return
    missing = [parent for parent in place.parents if not parent.exists()]
    lock = None
    try:
        lock = _lock(place, folder)
        yield
    finally:
        if lock:
            lock.file.unlink(missing_ok=True)
            os.close(lock.handle)
        for parent in missing:  # made for the lock; they stay if the command wrote into them
            with suppress(OSError):
                parent.rmdir()
        del _writers[place]


def one_writer(command: Callable[P, T]) -> Callable[P, T]:
    """For a command that writes the folder of its keyword argument `out`."""

    @functools.wraps(command)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        out = kwargs["out"]
        assert isinstance(out, Path)  # noqa: S101 - by the command's own types
        with writing(out):
            return command(*args, **kwargs)

    return locked


def _lock(place: Path, folder: Path) -> _Lock | None:
    """The lock, once no other process holds it; None where no file can be made. Raises BadInput."""
    for file in (place.with_name(f".{place.name}.lock"), place / ".lock"):
        with suppress(OSError):
            if file.parent != place:
                file.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle = _locked(file, folder)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), file.stat()):
                        return _Lock(file, handle)
                os.close(handle)  # its holder has just removed it
    return None


def _locked(file: Path, folder: Path) -> int:
    """A handle of the locked file, in which this process's id and command stand."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(handle, 4096).decode("utf-8", "replace")
        os.close(handle)
        raise _busy(folder, holder) from None
    except OSError:
        os.close(handle)
        raise
    with suppress(OSError):  # a full disk
        os.truncate(handle, 0)
        os.write(handle, _this_process().encode("utf-8", "surrogateescape"))
    return handle


def _this_process() -> str:
    return f"{os.getpid()}: phi3flow {shlex.join(sys.argv[1:])}"


def _busy(folder: Path, holder: str) -> BadInput:
    return BadInput(
        f"{folder}: another run is writing there, process {holder}",
        hint="wait for it, or write elsewhere",
    )
