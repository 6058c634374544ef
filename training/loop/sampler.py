"""The order of a run's rows: batches of similar length, the same again when the run resumes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState

EPOCHS = 1_000_003  # more than any run has: no two pairs of seed and epoch share a generator
POOL_BATCHES = 50  # rows are sorted by length within pools of this many batches


class LengthGroupedSampler(Sampler[int]):
    """Batches of rows of similar length, in an order that only seed and epoch decide.

    Transformers' own sampler draws from the global random state, so a resumed run would see later epochs in
    another order, and it leaves the batches of a pool sorted from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, *, fewest: int = 1) -> None:
        """`fewest`: see `with_a_last_batch`."""
        self._lengths, self._fewest = lengths, fewest
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, also before a resumed one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(with_a_last_batch(range(len(self._lengths)), self._batch_size, self._fewest))

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * EPOCHS + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        batches = [
            batch for pool in _cut(order, POOL_BATCHES * self._batch_size) for batch in self._batches(pool)
        ]
        # The short batch stays last: elsewhere it would shift all batches that follow.
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        rows = [row for batch in [*(batches[i] for i in shuffled), *short] for row in batch]
        return iter(with_a_last_batch(rows, self._batch_size, self._fewest))

    def _batches(self, pool: list[int]) -> list[list[int]]:
        return _cut(sorted(pool, key=lambda row: self._lengths[row]), self._batch_size)


def with_a_last_batch(rows: Sequence[int], size: int, fewest: int) -> Sequence[int]:
    """The rows, with the first ones again where the last batch would have fewer than `fewest`."""
    left = len(rows) % size
    return [*rows, *rows[: fewest - left]] if 0 < left < fewest else rows


class TellEpoch(TrainerCallback):
    """Calls `set_epoch`. accelerate does, too, but not for the first epoch of several resumed ranks."""

    def __init__(self, sampler: LengthGroupedSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
