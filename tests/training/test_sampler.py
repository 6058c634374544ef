"""The order of the rows depends only on seed and epoch, with little padding."""

import random
from itertools import pairwise

from training.loop.sampler import LengthGroupedSampler

RNG = random.Random(0)
LENGTHS = [RNG.randint(5, 80) for _ in range(1003)]


def order(seed=0, epoch=0):
    sampler = LengthGroupedSampler(LENGTHS, 8, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_row_comes_once_and_epochs_and_seeds_differ():
    assert sorted(order()) == list(range(len(LENGTHS)))
    assert order() == order()
    assert order() != order(epoch=1) != order(seed=1)


def test_a_last_batch_that_is_too_small_gets_the_first_rows_again():
    sampler = LengthGroupedSampler(LENGTHS[:9], 8, 0, fewest=2)
    rows = list(sampler)
    assert len(sampler) == len(rows) == 10 and rows[9] == rows[0]
    assert len(list(LengthGroupedSampler(LENGTHS[:10], 8, 0, fewest=2))) == 10


def test_batches_have_rows_of_similar_length_and_are_shuffled():
    rows = order()
    batches = [[LENGTHS[row] for row in rows[i : i + 8]] for i in range(0, len(rows), 8)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert padded < 1.1 * sum(LENGTHS)
    rising = sum(sum(a) <= sum(b) for a, b in pairwise(batches))
    assert 0.35 < rising / len(batches) < 0.65
