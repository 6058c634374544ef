"""The processes that train one model together, where PyTorch's launcher or Azure ML has started several.

Each is a rank and reads batches of its own, and gradients are averaged over all, so N ranks make every batch
N times as large. Rank 0 alone writes and reports; the others may be on machines that do not see its disk. The
launcher sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun documents them.
"""

import os
from datetime import timedelta
from typing import TypeVar

from phi3flow.core.console import say

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # while rank 0 answers the probes


def several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    return int(os.environ.get("RANK", "0")) if several() else 0


def leads() -> bool:
    """Whether this process writes and reports."""
    return rank() == 0


def tell(message: str) -> None:
    """One line of progress for the whole run."""
    if leads():
        say(message)


def join() -> None:
    """The ranks find each other; accelerate then uses their group: NCCL between GPUs, gloo for the rest."""
    if not several():
        return
    from torch import cuda, distributed

    if not cuda.is_available():
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # not cpu:0, to which torch loads no optimiser state
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo", timeout=PATIENCE)


def leave() -> None:
    """All together, once nothing is left to agree upon; not after a failure, when some may never come."""
    if several():
        from torch import distributed

        distributed.destroy_process_group()


def agreed(value: T) -> T:
    """What rank 0 says; what the others give does not matter. All wait for it."""
    if not several():
        return value
    from torch import distributed

    said = [value]
    distributed.broadcast_object_list(said, src=0)
    return said[0]


def wait_for_all() -> None:
    if several():
        from torch import distributed

        distributed.barrier()
