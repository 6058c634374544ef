"""Intervals and tests for two models that answered the same rows.

Chosen by simulation (docs/evaluation.md): for right or wrong answers the percentile bootstrap covers too
little where nearly all differences agree, as after a good fine-tuning; Newcombe's score interval does not.
Functions return None if there are too few rows.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap, norm

CONFIDENCE = 0.95
POWER = 0.80
RESAMPLES = 10_000
LARGE = 10_000  # independent values from which the normal interval replaces the bootstrap
MOST_NEEDED = 10_000_000  # rows: nobody asks more
_BATCH_ELEMENTS = 2_000_000  # resampled values in memory: 16 MB
Z = float(norm.ppf((1 + CONFIDENCE) / 2))
Z_POWER = float(norm.ppf(POWER))


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """An interval, and the two-sided p that there is no difference."""

    interval: Interval | None
    p: float | None


def wilson(successes: float, n: float) -> Interval | None:
    """Score interval of one proportion: Wilson 1927, JASA 22, 209-212. Counts may be effective ones."""
    if n == 0:
        return None
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


@dataclass(frozen=True)
class Share:
    """Of `n` rows the share with a property. `design_effect` rows say as much as an independent one."""

    n: int
    share: float
    design_effect: float = 1.0

    def interval(self, n: int | None = None) -> Interval:
        """Wilson's interval; that of `n` rows with the same share, if given."""
        rows = (n or self.n) / self.design_effect
        return wilson(self.share * rows, rows) or Interval(0.0, 1.0)

    def rows_needed(self, margin: float) -> int | None:
        """The first number of rows, to within a hundredth, whose lower end is at least `margin`; or None."""
        return _first_clear(lambda n: self.interval(n).low >= margin) if self.share > margin else None


def _first_clear(clear: Callable[[int], bool], n: int = 1) -> int:
    """The first number from `n` on, to within a hundredth, that is clear, or `MOST_NEEDED`."""
    while n < MOST_NEEDED and not clear(n):
        n = math.ceil(n * 1.01)
    return n


def paired_proportions(
    base: ArrayLike, tuned: ArrayLike, *, clusters: NDArray[np.int64] | None = None
) -> Interval | None:
    """Interval of share(tuned) - share(base) over the same rows, each value 0 or 1.

    Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: the two Wilson intervals, combined
    with the correlation of the pairs (continuity-corrected). With `clusters`, a number for each row, all
    counts are divided by the design effect of the differences first.
    """
    shares = paired_shares(base, tuned, clusters=clusters)
    return shares.interval() if shares else None


@dataclass(frozen=True)
class PairedShares:
    """Of `n` rows the shares that base, tuned, and both are right about.

    `design_effect` is how many of them say as much as one independent row.
    """

    n: int
    base: float
    tuned: float
    both: float
    design_effect: float = 1.0

    def interval(self, n: int | None = None) -> Interval:
        """Newcombe's interval; that of `n` rows with the same shares, if given."""
        rows = (n or self.n) / self.design_effect
        low_base, high_base = wilson(self.base * rows, rows) or (0.0, 1.0)
        low_tuned, high_tuned = wilson(self.tuned * rows, rows) or (0.0, 1.0)
        phi = _corrected_phi(self.both * rows, self.base * rows, self.tuned * rows, rows)
        below = _combined(self.tuned - low_tuned, high_base - self.base, phi)
        above = _combined(high_tuned - self.tuned, self.base - low_base, phi)
        difference = self.tuned - self.base
        return Interval(max(-1.0, difference - below), min(1.0, difference + above))

    def rows_needed(self, margin: float) -> int | None:
        """Rows at which the lower end lies above `margin`, if these are typical; None if none would do.

        The larger of the sample size of `rows_needed` and the first number, to within a hundredth, at which
        the interval of the same shares does so: where nothing changed, the variance is no guide.
        """
        difference = self.tuned - self.base
        if difference <= margin:
            return None
        variance = self.base + self.tuned - 2 * self.both - difference**2
        n = max(1, _sample_size(self.design_effect * variance, difference - margin))
        return _first_clear(lambda rows: self.interval(rows).low > margin, n)


def paired_shares(
    base: ArrayLike, tuned: ArrayLike, *, clusters: NDArray[np.int64] | None = None
) -> PairedShares | None:
    """The shares of two columns of 0 and 1; None without rows. `clusters` has a number for each row."""
    was, now = np.asarray(base) > 0, np.asarray(tuned) > 0
    if len(was) == 0:
        return None
    effect = 1.0 if clusters is None else design_effect(now.astype(float) - was.astype(float), clusters)
    both = float((was & now).mean())
    return PairedShares(len(was), float(was.mean()), float(now.mean()), both, effect)


def _corrected_phi(both: float, base: float, tuned: float, n: float) -> float:
    """Correlation of two binary columns from their counts, a positive one reduced by n/2 in the numerator."""
    margins = base * (n - base) * tuned * (n - tuned)
    if margins <= 0:
        return 0.0
    association = both * (n - base - tuned + both) - (base - both) * (tuned - both)
    corrected = max(association - n / 2, 0.0) if association > 0 else float(association)
    return corrected / math.sqrt(margins)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def design_effect(values: ArrayLike, clusters: NDArray[np.int64]) -> float:
    """How many dependent rows say as much as one independent row, at least 1.

    The variance of the mean with whole clusters as units, over that with rows as units. Dividing counts by
    it makes methods for independent rows fit: Rao and Scott 1992, Biometrics 48, 577-585. Where all values
    agree and nothing can be estimated, a cluster counts as one row.
    """
    deviations = np.asarray(values, dtype=float)
    totals, n = _cluster_residuals(deviations, clusters), len(clusters)
    spread = float(((deviations - deviations.mean()) ** 2).sum())
    if len(totals) == 1 or spread == 0:
        return n / len(totals)
    between = len(totals) / (len(totals) - 1) * float((totals**2).sum())
    return min(max(between / spread, 1.0), float(n))


def _cluster_residuals(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of each cluster's deviations from the mean of all rows."""
    return np.bincount(clusters, weights=values - values.mean()).astype(float)


def mean_difference(
    differences: ArrayLike, *, seed: int = 0, bounded: bool, clusters: NDArray[np.int64] | None = None
) -> Estimate:
    """Percentile bootstrap of the mean: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.

    p is the level at which the percentile interval begins to hold 0 (ch. 15). With `clusters`, a number from
    0 for each row, whole clusters are drawn (Field and Welsh 2007, JRSS B 69, 369-390). From `LARGE` units
    on, the normal interval with the same units stands in.

    Where all differences are equal a bootstrap would claim certainty. `bounded` differences (within -1..1)
    then get the rule of three instead (Hanley and Lippman-Hand 1983, JAMA 249, 1743-1745): at most a share
    of 1 - 0.025^(1/n) of all units differ from what was seen. Unbounded ones get no interval.
    """
    values = np.asarray(differences, dtype=float)
    units = len(values) if clusters is None else int(clusters.max(initial=-1)) + 1
    if units == 0:
        return Estimate(None, None)
    if np.all(values == values[0]):
        value = float(values[0])
        return Estimate(_all_equal(value, units) if bounded else None, mcnemar(units, 0) if value else 1.0)
    if units == 1:
        return Estimate(None, None)
    if units >= LARGE:
        return _normal(values, clusters)
    means = _resampled_means(values, clusters, seed)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Estimate(Interval(float(low), float(high)), min(1.0, 2 * (tail + 1) / (len(means) + 1)))


def _resampled_means(
    values: NDArray[np.float64], clusters: NDArray[np.int64] | None, seed: int
) -> NDArray[np.float64]:
    totals = [values]
    if clusters is not None:
        totals = [np.bincount(clusters, weights=values).astype(float), np.bincount(clusters).astype(float)]
    found = bootstrap(
        totals,
        np.mean if clusters is None else _ratio,
        paired=clusters is not None,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_ELEMENTS // len(totals[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means: NDArray[np.float64] = found.bootstrap_distribution
    return means


def _ratio(totals: NDArray[np.float64], sizes: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = totals.sum(axis=axis) / sizes.sum(axis=axis)
    return mean


def _normal(values: NDArray[np.float64], clusters: NDArray[np.int64] | None) -> Estimate:
    """Mean +- z standard errors, which for clusters come from their residuals: Field and Welsh 2007."""
    residuals = values - values.mean() if clusters is None else _cluster_residuals(values, clusters)
    units = len(residuals)
    error = math.sqrt(units / (units - 1) * float((residuals**2).sum())) / len(values)
    mean = float(values.mean())
    p = float(2 * norm.sf(abs(mean) / error)) if error else float(mean == 0)
    return Estimate(Interval(mean - Z * error, mean + Z * error), p)


def _all_equal(value: float, n: int) -> Interval:
    unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    return Interval(value - unseen * (value + 1), value + unseen * (1 - value))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that gains and losses are equally likely: McNemar 1947, Psychometrika 12, 153-157."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """p adjusted for looking at several metrics: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Calling those below 5 % different is wrong about any of them in at most 5 % of all comparisons.
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for position, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        adjusted[name] = largest
    return adjusted


def half_width(rows: int, differing: float = 0.5) -> float:
    """Half of the normal interval of a paired difference of proportions, before any row is asked.

    `differing` is the share of rows on which one model is right and the other wrong, as often either way;
    it is then the variance of a row's difference.
    """
    return Z * math.sqrt(differing / rows)


def rows_needed(
    differences: ArrayLike,
    margin: float,
    at_least: int,
    *,
    clusters: NDArray[np.int64] | None = None,
) -> int | None:
    """Rows at which the interval's lower end clears `margin` with 80 % power, if these rows are typical.

    n = (z_0.975 + z_0.80)^2 * variance / (difference - margin)^2: Chow, Shao, Wang and Lokhnygina, Sample
    Size Calculations in Clinical Research, ch. 3, one-sample design. None when the difference seen does not
    exceed the margin: then no number of such rows would do. `clusters` multiply it by the design effect.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) == 0 or values.mean() <= margin:
        return None
    effect = 1.0 if clusters is None else design_effect(values, clusters)
    return max(at_least, _sample_size(effect * float(values.var()), float(values.mean()) - margin))


def _sample_size(variance: float, distance: float) -> int:
    return math.ceil((Z + Z_POWER) ** 2 * variance / distance**2)
