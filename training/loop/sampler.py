"""The order of the training rows: batches of similar length, in an order that only seed and epoch decide."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

EPOCHS = 1_000_003  # more than any run has, so that no two pairs of seed and epoch meet
POOL_BATCHES = 50  # rows are sorted by length within pools of so many batches


class LengthGroupedSampler(Sampler[int]):
    """Groups rows by length so that little is padding, and shuffles the batches.

    Transformers' own sampler draws from the global random state, so a resumed run sees later epochs in
    another order than an undisturbed one, and it leaves the batches of a pool sorted from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch, the resumed one included."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * EPOCHS + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        batches = [
            batch for pool in _cut(order, POOL_BATCHES * self._batch_size) for batch in self._batches(pool)
        ]
        # The one short batch stays last: anywhere else it would shift all that follow.
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return iter([row for batch in [*(batches[i] for i in shuffled), *short] for row in batch])

    def _batches(self, pool: list[int]) -> list[list[int]]:
        return _cut(sorted(pool, key=lambda row: self._lengths[row]), self._batch_size)


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
