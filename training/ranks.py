"""Several processes that train one model, started by torchrun or by Azure ML's PyTorch launcher.

Each rank reads its own batches and gradients are averaged over all of them, so N ranks make every batch N
times as large. Only rank 0, the main process, writes and reports; the others may run on machines that do not
see its disk. The launcher sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

accelerate's `PartialState` does the work. A single process never imports it.
"""

import os
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError, first_line, translating

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
SHARDING = {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}  # as accelerate launch
TIMEOUT = timedelta(minutes=30)  # the others wait while rank 0 answers the probes


def world_size() -> int:
    """How many processes train this model."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    """Whether more than one process trains this model."""
    return world_size() > 1


def rank() -> int:
    return int(os.environ.get("RANK", "0")) if several() else 0


def is_main_process() -> bool:
    """Whether this process is rank 0, which writes and reports."""
    return rank() == 0


def print0(message: str) -> None:
    """One line on stderr, from rank 0 only."""
    if is_main_process():
        say(message)


def init(*, sharding: bool = False) -> None:
    """Connect the ranks: NCCL between GPUs, gloo between CPUs. Waits for all of them.

    With `sharding` accelerate connects GPUs with gloo, too, for the CPU's part of checkpoints.
    """
    if several():
        if sharding:
            os.environ.update(SHARDING)
        _state()


def destroy() -> None:
    """Disconnect the ranks. Every rank calls it, but not after a failure: some might never arrive."""
    if several():
        _state().destroy_process_group()


def broadcast(value: T) -> T:
    """Rank 0's `value`, on every rank; the other ranks' values are ignored."""
    if not several():
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def wait_for_everyone() -> None:
    """Return once every rank has called it."""
    if several():
        _state().wait_for_everyone()


def explaining_a_lost_rank() -> AbstractContextManager[None]:
    """Turn the error of a connection to a process that has ended into a Phi3flowError."""

    def explained(error: Exception) -> Exception:
        from torch.distributed import DistError

        if not several() or not (isinstance(error, DistError) or "gloo" in str(error)):
            return error
        return Phi3flowError(
            f"another process of this run has ended: {first_line(error)}",
            hint="see its own output; the same command continues from the last checkpoint",
        )

    return translating({RuntimeError: explained})


def _state() -> "PartialState":
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # not cpu:0: torch.load maps no optimiser state to it
    return PartialState(timeout=TIMEOUT)
