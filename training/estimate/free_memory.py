"""Memory that a run may still take: of the GPU, or of this machine within the limits of its container."""

from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


class _Names(NamedTuple):
    """Files of a control group, and the line of its memory.stat that counts cached files nobody reads."""

    limit: str
    used: str
    cached: str


V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = _Names("memory.max", "memory.current", "inactive_file")


def free_memory(*, gpu: bool, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Bytes that are free on the current GPU, or here: where a container allows less, so much."""
    if gpu:
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    machine = int(psutil.virtual_memory().available)
    container = _free_in_container(cgroups, membership)
    return machine if container is None else min(machine, container)


def _free_in_container(cgroups: Path, membership: Path) -> int | None:
    """Bytes up to the tightest limit of this process's control groups; None where none sets any.

    A limit of a group further up binds as well (cgroups(7)). What is cached and not in use is given up before
    anything is killed and counts as free, as Kubernetes counts it. Inside a container the path may be the
    host's, which is not there: then the top of the tree is the container's own group.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None  # not Linux
    free = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            free += _free_along(cgroups, path, V2)
        elif "memory" in controllers.split(","):
            free += _free_along(cgroups / "memory", path, V1)
    return min(free, default=None)


def _free_along(top: Path, path: str, names: _Names) -> list[int]:
    """What each group from the top of the tree down to `path` leaves."""
    folders = [top]
    for part in Path(path).parts[1:]:
        folders.append(folders[-1] / part)
    return [free for folder in folders if (free := _free_in(folder, names)) is not None]


def _free_in(folder: Path, names: _Names) -> int | None:
    try:
        limit = (folder / names.limit).read_text(encoding="utf-8").strip()
        used = int((folder / names.used).read_text(encoding="utf-8"))
        stat = (folder / "memory.stat").read_text(encoding="utf-8")
    except OSError:
        return None  # the root of a machine has no limit, and a host's path is not seen from inside
    if limit == "max":
        return None
    cached = int(dict(line.split() for line in stat.splitlines()).get(names.cached, 0))
    return max(0, int(limit) - used + cached)
