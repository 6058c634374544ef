"""A disk that fills up while a run writes: one sentence, whichever library noticed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phi3flow.core.errors import Phi3flowError
from training.checkpoints import step_of, usable
from training.estimate.footprint import free_disk, size

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming_a_full_disk(work: Path, checkpoints: Path, needed: int) -> Iterator[None]:
    """Turn a write that found no room into a Phi3flowError; `needed` bytes are a checkpoint's."""
    try:
        yield
    except Exception as error:
        reason = _no_room(error)
        if reason is None:
            raise
        kept = usable(checkpoints)
        goes_on = f"continues after step {step_of(kept[0])}" if kept else "starts anew"
        free = size(free_disk(work))
        raise Phi3flowError(
            f"{work}: cannot be written: {reason}; a checkpoint takes about {size(needed)}, {free} are free",
            hint=f"free space there; the same command {goes_on}",
        ) from error


def _no_room(error: Exception) -> str | None:
    """The system's word for it, None for another error.

    safetensors names the system's error in its message, and torch's writer of archives names none.
    """
    from safetensors import SafetensorError

    if isinstance(error, OSError) and error.errno in FULL:
        return os.strerror(error.errno)
    if isinstance(error, SafetensorError):
        return next((os.strerror(code) for code in FULL if f"os error {code}" in str(error)), None)
    if isinstance(error, RuntimeError) and (
        "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
    ):
        return "a file was cut short"
    return None
