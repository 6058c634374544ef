import math
from itertools import product

import numpy as np
import pytest

from evaluation.statistics.intervals import mcnemar, mean_difference, paired_proportions, rows_needed, wilson


def columns(both, only_base, only_tuned, neither):
    """Right or wrong, for base and tuned, with these counts."""
    base = [1.0] * (both + only_base) + [0.0] * (only_tuned + neither)
    tuned = [1.0] * both + [0.0] * only_base + [1.0] * only_tuned + [0.0] * neither
    return base, tuned


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_the_published_table(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_paired_interval_agrees_with_the_published_example():
    # Altman et al. 2000, Statistics with Confidence, table 6.2: 14 both, 5 and 0 discordant, 22 neither
    base, tuned = columns(both=14, only_base=0, only_tuned=5, neither=22)
    assert paired_proportions(base, tuned) == pytest.approx((0.011, 0.226), abs=1e-3)


def test_paired_interval_changes_sign_with_the_sides():
    base, tuned = columns(both=20, only_base=3, only_tuned=9, neither=8)
    low, high = paired_proportions(base, tuned)
    assert paired_proportions(tuned, base) == pytest.approx((-high, -low))


@pytest.mark.parametrize("counts", [(0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 50, 0), (50, 0, 0, 0)])
def test_paired_interval_is_never_a_point(counts):
    low, high = paired_proportions(*columns(*counts))
    assert -1 <= low < high <= 1


def test_nothing_is_claimed_without_rows():
    assert wilson(0, 0) is None
    assert paired_proportions([], []) is None
    assert mean_difference([], seed=0, bounded=True).interval is None
    assert rows_needed([], 0, 30) is None


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (6, 0), (9, 2), (7, 7)])
def test_mcnemar_agrees_with_enumeration(gained, lost):
    pairs = gained + lost
    seen = abs(gained - lost)
    extreme = [abs(2 * sum(coins) - pairs) >= seen for coins in product((0, 1), repeat=pairs)]
    assert mcnemar(gained, lost) == pytest.approx(np.mean(extreme))


@pytest.mark.parametrize(
    "shares",  # both, only base, only tuned, neither
    [(0.4, 0.1, 0.1, 0.4), (0.0, 0.0, 0.95, 0.05), (0.5, 0.07, 0.12, 0.31), (0.9, 0.01, 0.03, 0.06)],
)
def test_paired_interval_covers_the_truth(shares):
    rng = np.random.default_rng(1)
    truth = shares[2] - shares[1]
    tables = rng.multinomial(200, shares, size=300)
    intervals = [paired_proportions(*columns(*table)) for table in tables]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99
    assert np.mean([low > truth for low, _ in intervals]) <= 0.05


def test_bootstrap_covers_the_truth():
    rng = np.random.default_rng(2)
    samples = rng.beta(2, 5, size=(100, 80)) - 0.3
    truth = 2 / 7 - 0.3
    intervals = [mean_difference(sample, seed=0, bounded=True).interval for sample in samples]
    assert 0.89 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99


def test_bootstrap_depends_on_the_seed_alone():
    values = [0.1, 0.4, -0.2, 0.3, 0.9]
    assert (
        mean_difference(values, seed=3, bounded=True).interval
        == mean_difference(values, seed=3, bounded=True).interval
    )
    assert (
        mean_difference(values, seed=3, bounded=True).interval
        != mean_difference(values, seed=4, bounded=True).interval
    )


def test_equal_differences_do_not_make_the_mean_certain():
    low, high = mean_difference([0.0] * 100, seed=0, bounded=True).interval
    assert (low, high) == pytest.approx((-0.0362, 0.0362), abs=1e-4)
    assert mean_difference([1.0], seed=0, bounded=True).interval == pytest.approx((-0.95, 1.0))
    assert mean_difference([7.0, 7.0], seed=0, bounded=False).interval is None


def test_the_named_number_of_rows_has_the_promised_power():
    rng = np.random.default_rng(4)
    pilot = [1.0] * 22 + [-1.0] * 10 + [0.0] * 68
    needed = rows_needed(pilot, margin=0.02, at_least=30)
    variance = 0.32 - 0.12**2
    assert needed == math.ceil((1.959964 + 0.841621) ** 2 * variance / 0.1**2)
    # base right in 40 %: of those rows 10 points lost, of the others 22 points gained
    tables = rng.multinomial(needed, (0.3, 0.1, 0.22, 0.38), size=400)
    cleared = [paired_proportions(*columns(*table)).low > 0.02 for table in tables]
    assert 0.74 <= np.mean(cleared) <= 0.86


def test_no_number_of_rows_is_named_for_a_difference_within_the_margin():
    assert rows_needed([0.0, 0.1, 0.0], margin=0.05, at_least=30) is None
    assert rows_needed([1.0, 1.0, 1.0], margin=0.0, at_least=30) == 30
