"""What a run may still use: GPU memory, memory within the limits of a container, and disk."""

import errno
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.errors import Phi3flowError, translating
from training.checkpoints import step_of, valid_checkpoints

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Names(NamedTuple):
    """Files of a control group, and the line of memory.stat with the cached bytes that can be dropped."""

    limit: str
    used: str
    cached: str


V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = _Names("memory.max", "memory.current", "inactive_file")


def size(count: int) -> str:
    """`count` bytes as text; 1 GB is 10^9 bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def free_memory(*, gpu: bool, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Free bytes of the current GPU, or of this machine; a container's limit counts if it is lower."""
    if gpu:
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    machine = int(psutil.virtual_memory().available)
    container = _free_in_container(cgroups, membership)
    return machine if container is None else min(machine, container)


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.resolve().parents) if path.exists())).free


def explaining_a_full_disk(work: Path, checkpoints: Path, needed: int) -> AbstractContextManager[None]:
    """Turn a write that failed for lack of space into a Phi3flowError; a checkpoint takes `needed` bytes."""

    def explained(error: Exception) -> Exception:
        reason = _no_space(error)
        if reason is None:
            return error
        valid = valid_checkpoints(checkpoints)
        resumes = f"continues after step {step_of(valid[0])}" if valid else "starts from the beginning"
        return Phi3flowError(
            f"{work}: cannot be written: {reason}; a checkpoint takes about {size(needed)}, "
            f"{size(free_disk(work))} are free",
            hint=f"free some space there and run the same command again; it {resumes}",
        )

    return translating({Exception: explained})


def _no_space(error: Exception) -> str | None:
    """The system's message, None if `error` is about something else.

    safetensors and tokenizers put the system's error number in their message, the latter plainly;
    torch's archive writer reports none.
    """
    from safetensors import SafetensorError

    if isinstance(error, OSError) and error.errno in FULL:
        return os.strerror(error.errno)
    if isinstance(error, SafetensorError) or type(error) is Exception:
        return next((os.strerror(code) for code in FULL if f"os error {code}" in str(error)), None)
    if isinstance(error, RuntimeError) and (
        "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
    ):
        return "a file was cut short"
    return None


def _free_in_container(cgroups: Path, membership: Path) -> int | None:
    """Bytes up to the tightest limit of this process's control groups; None if none sets a limit.

    Limits of parent groups bind as well (cgroups(7)). Cached bytes that can be dropped count as free, as in
    Kubernetes. Inside a container the path may be the host's, which does not exist there; then the top of the
    tree is the container's own group.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None  # not Linux
    free = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (cgroups / "memory", V1) if controllers else (cgroups, V2)
        own = top / path.lstrip("/")
        groups = [own, *own.parents][: len(Path(path).parts)]  # up to `top`
        free += [_free_in(group, names) for group in groups]
    return min((count for count in free if count is not None), default=None)


def _free_in(folder: Path, names: _Names) -> int | None:
    try:
        limit = (folder / names.limit).read_text(encoding="utf-8").strip()
        used = int((folder / names.used).read_text(encoding="utf-8"))
        stat = (folder / "memory.stat").read_text(encoding="utf-8")
    except OSError:
        return None  # a machine's root group has no limit, and a host's path does not exist in a container
    if limit == "max":
        return None
    cached = int(dict(line.split() for line in stat.splitlines()).get(names.cached, 0))
    return max(0, int(limit) - used + cached)
