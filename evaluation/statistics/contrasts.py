"""Columns -> means of both models, their paired difference and its CI.

Rows whose reference declines count only in `declined`: in `exact_match` they would reward a model that
declines everything.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from evaluation.statistics.intervals import (
    Estimate,
    Interval,
    Share,
    design_effect,
    holm,
    mcnemar,
    mean_difference,
    paired_proportions,
    wilson,
)
from evaluation.statistics.scores import Column, Floats, Kind, Numbers, Scores, clusters_of

Clusters = Numbers | None


@dataclass(frozen=True)
class ModelScore:
    """One model's share of exact matches, and how many lines it failed to answer."""

    exact_match: float | None
    exact_match_ci: Interval | None
    failed: int


@dataclass(frozen=True)
class Contrast:
    """Means of both models over the same `n` rows, and tuned minus base; None if n is 0."""

    n: int
    base: float | None
    tuned: float | None
    difference: float | None
    difference_ci: Interval | None

    @classmethod
    def of(cls, column: Column, interval: Interval | None, **more: Any) -> Self:
        """The means of `column`; `interval` is the CI of their difference, `more` a subclass's own fields."""
        n = len(column.base)
        sides = (*column, column.difference)
        base, tuned, difference = (float(np.mean(side)) if n else None for side in sides)
        return cls(n, base, tuned, difference, interval if n else None, **more)


@dataclass(frozen=True)
class MetricContrast(Contrast):
    """`p` is two-sided against no difference; `p_holm` is adjusted for all metrics."""

    p: float | None
    p_holm: float | None
    kind: Kind


@dataclass(frozen=True)
class Declined:
    """Share of the `n` unanswerable questions that each model declined."""

    n: int
    base: float | None
    tuned: float | None


@dataclass(frozen=True)
class SliceContrast(Contrast):
    """The primary metric on the rows of one slice."""

    declined: Declined


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile of seconds per answer; None if not measured."""

    p50: float | None
    p95: float | None


def metric_contrasts(counted: Scores) -> dict[str, MetricContrast]:
    """Every metric, over the rows that have it for both models."""
    columns: dict[str, Column] = {}
    estimates: dict[str, Estimate] = {}
    for name, column in counted.metrics.items():
        columns[name] = column.where(column.measured)
        clusters = clusters_of(counted.where(column.measured))
        estimates[name] = _estimate(counted.kind_of(name), columns[name], clusters)
    adjusted = holm({name: estimate.p for name, estimate in estimates.items()})
    return {
        name: MetricContrast.of(
            columns[name],
            estimate.interval,
            p=estimate.p,
            p_holm=adjusted[name],
            kind=counted.kind_of(name),
        )
        for name, estimate in estimates.items()
    }


def _estimate(kind: Kind, column: Column, clusters: Clusters) -> Estimate:
    """Score interval for right or wrong, with McNemar's p if rows are independent; else the bootstrap."""
    mean = mean_difference(column.difference, bounded=kind is not Kind.NUMBER, clusters=clusters)
    if kind is not Kind.BINARY or mean.p is None:
        return mean
    gained, lost = int((column.difference > 0).sum()), int((column.difference < 0).sum())
    p = mcnemar(gained, lost) if clusters is None else mean.p
    return Estimate(paired_proportions(column.base, column.tuned, clusters=clusters), p)


def declined_of(scores: Scores) -> Declined:
    n = int(scores.unanswerable.sum())
    if not n:
        return Declined(0, None, None)
    declined = scores.declined.where(scores.unanswerable)
    return Declined(n, float(np.mean(declined.base)), float(np.mean(declined.tuned)))


def interval_with_failures(scores: Scores, metric: str) -> Interval | None:
    """The CI of a metric of 0..1 with every failed line counted against tuned.

    Whether failures are missing at random is unknown: tuned may have failed on just those lines that base has
    right.
    """
    column = scores.with_failures(metric)
    clusters = clusters_of(scores.where(~scores.declining))
    return _estimate(scores.kind_of(metric), column, clusters).interval


def declined_with_failures(scores: Scores) -> Share | None:
    """The unanswerable questions, and the share that tuned declined; a failed line did not."""
    asked = scores.where(scores.declining)
    if not len(asked):
        return None
    declined, clusters = np.nan_to_num(asked.declined.tuned, nan=0.0), clusters_of(asked)
    effect = 1.0 if clusters is None else design_effect(declined, clusters)
    return Share(len(asked), float(declined.mean()), effect)


def slice_contrasts(scores: Scores, metric: str) -> dict[str, SliceContrast]:
    """`metric` for each slice, in the order of the file."""
    slices = {}
    for name, number in scores.slice_numbers.items():
        if name is None:
            continue
        inside = scores.where(scores.slices == number)
        counted = inside.where(inside.counted)
        column = counted.metrics[metric]
        interval = _estimate(scores.kind_of(metric), column, clusters_of(counted)).interval
        slices[name] = SliceContrast.of(column, interval, declined=declined_of(inside))
    return slices


def model_score(right: Floats, failed: Floats, clusters: Clusters) -> ModelScore:
    """`right` is exact match over the rows that count, `failed` covers all rows."""
    effect = 1.0 if clusters is None else design_effect(right, clusters)
    share = float(np.mean(right)) if len(right) else None
    interval = wilson(float(right.sum()) / effect, len(right) / effect)
    return ModelScore(share, interval, int(failed.sum()))


def latency_of(seconds: Floats) -> Latency:
    """`seconds` is NaN where nothing was measured."""
    measured = seconds[~np.isnan(seconds)]
    if not len(measured):
        return Latency(None, None)
    p50, p95 = np.percentile(measured, [50, 95])
    return Latency(float(p50), float(p95))
