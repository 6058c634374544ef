"""Rows -> statistics -> verdict: the content of `report.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.judge.pairwise_summary import Judging
from evaluation.packs.packs import PackResult
from evaluation.scored_rows import ScoredRow
from evaluation.statistics.contrasts import (
    Declined,
    Latency,
    MetricContrast,
    ModelScore,
    SliceContrast,
    declined_of,
    declined_with_failures,
    interval_with_failures,
    latency_of,
    metric_contrasts,
    model_score,
    slice_contrasts,
)
from evaluation.statistics.intervals import Interval, rows_needed
from evaluation.statistics.scores import Measured, clusters_of, score_rows
from evaluation.verdict.decision import NO_JUDGE, Sample, Verdict, decide, decide_metric
from evaluation.verdict.gate import WIN_RATE, Gate
from evaluation.verdict.pack_limits import not_asked
from evaluation.verdict.primary import Fit, primary_fit, settled

SCHEMA = "phi3flow/report/1"
NOT_RETURNED = "the endpoints do not return it"


@dataclass(frozen=True, kw_only=True)
class Report(Verdict):
    """`report.json`, field by field. `n` counts answerable rows that both models answered.

    `difference` is tuned minus base in the gate's primary metric, or the win rate minus one half.
    `with_failures_ci` is its CI with every failed line counted against tuned, None if none failed or a judge
    decides. `questions` counts the different questions among the `n` rows, `clusters` the clusters, None if
    all rows are independent. `in_training` counts the lines that stand in the training file. `not_asked`
    names packs. `unavailable` maps a metric to the reason. `notes` say what a reader should know besides,
    `primary_fit` whether the primary metric suits the references.
    """

    schema: str
    n: int
    expected: int
    answered: int
    failed: int
    base: ModelScore
    tuned: ModelScore
    difference: float | None
    difference_ci: Interval | None
    with_failures_ci: Interval | None
    metrics: dict[str, MetricContrast]
    unavailable: dict[str, str]
    slices: dict[str, SliceContrast]
    declined: Declined
    mcnemar_p: float | None
    seconds: dict[str, Latency]
    gate: Gate
    lineage: dict[str, Any]
    questions: int
    clusters: int | None
    not_asked: list[str]
    packs: dict[str, PackResult]
    judge: Judging | None
    in_training: int
    notes: list[str]
    primary_fit: Fit

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_rows(
    rows: Sequence[ScoredRow],
    gate: Gate,
    *,
    lineage: Mapping[str, Any] | None = None,
    measured: Sequence[Measured] = (),
    packs: Mapping[str, PackResult] | None = None,
    judge: Judging | None = None,
    in_training: int = 0,
    notes: Sequence[str] = (),
) -> Report:
    """Compare both models' answers. Equal rows and gate give an equal report.

    `measured` are more metrics of the same lines. `packs` can keep a model from being promoted; `judge`
    decides only if the gate's primary metric is the win rate.
    """
    gate = settled(gate, rows)
    scores = score_rows(rows)
    for one in measured:
        scores.add(one)
    counted = scores.where(scores.counted)
    clusters = clusters_of(counted)
    cluster_count = None if clusters is None else int(clusters.max()) + 1
    metrics = metric_contrasts(counted)
    known = {name: contrast for name, contrast in metrics.items() if contrast.n or name != "answer_tokens"}
    declined = declined_of(scores)
    why_not = [Measured({}, {name: NOT_RETURNED for name in metrics if name not in known}), *measured]
    expected, answered = len(scores), int(scores.answered.sum())
    sample = Sample(len(counted), len(np.unique(counted.questions)), cluster_count)
    difference: float | None
    with_failures: Interval | None = None
    primary: Verdict
    if gate.primary == WIN_RATE:
        primary, (difference, interval) = judge or NO_JUDGE, _over_one_half(judge)
    else:
        contrast, differences = metrics[gate.primary], counted.metrics[gate.primary].difference
        difference, interval = contrast.difference, contrast.difference_ci
        needed = rows_needed(differences, gate.margin, gate.min_rows, clusters=clusters)
        if answered < expected:
            with_failures = interval_with_failures(scores, gate.primary)
        primary = decide_metric(contrast, sample, needed, gate, with_failures)
    verdict = decide(
        primary,
        gate,
        expected=expected,
        failed=expected - answered,
        declined=declined_with_failures(scores),
        identical=len(counted) >= gate.min_rows and bool(counted.same.all()),
        packs=packs or {},
        in_training=in_training,
    )
    return Report(
        **vars(verdict),
        schema=SCHEMA,
        n=len(counted),
        expected=expected,
        answered=answered,
        failed=expected - answered,
        base=model_score(counted.metrics["exact_match"].base, scores.failed.base, clusters),
        tuned=model_score(counted.metrics["exact_match"].tuned, scores.failed.tuned, clusters),
        difference=difference,
        difference_ci=interval,
        with_failures_ci=with_failures,
        metrics=known,
        unavailable={name: why for one in why_not for name, why in one.unavailable.items()},
        slices=slice_contrasts(scores, gate.answer_metric),
        declined=declined,
        mcnemar_p=None if clusters is not None else metrics["exact_match"].p,
        seconds={"base": latency_of(scores.seconds.base), "tuned": latency_of(scores.seconds.tuned)},
        gate=gate,
        lineage=dict(lineage or {}),
        questions=sample.questions,
        clusters=cluster_count,
        not_asked=not_asked(packs or {}, gate),
        packs=dict(packs or {}),
        judge=judge,
        in_training=in_training,
        notes=list(notes),
        primary_fit=primary_fit(rows, gate),
    )


def _over_one_half(judge: Judging | None) -> tuple[float | None, Interval | None]:
    """The judge's win rate minus one half, and its CI."""
    rate = judge.preference if judge else None
    if rate is None or rate.win_rate is None or rate.win_rate_ci is None:
        return None, None
    low, high = rate.win_rate_ci
    return rate.win_rate - 0.5, Interval(low - 0.5, high - 0.5)
