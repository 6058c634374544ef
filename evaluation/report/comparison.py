"""Rows -> statistics -> verdict: the content of `report.json`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
    latency_of,
    metric_contrasts,
    model_score,
    slice_contrasts,
)
from evaluation.statistics.intervals import Interval, rows_needed
from evaluation.statistics.scores import Measured, clusters_of, score_rows
from evaluation.verdict.decision import NO_JUDGE, Verdict, decide, decide_metric
from evaluation.verdict.gate import WIN_RATE, Gate

SCHEMA = "phi3flow/report/1"
NOT_RETURNED = "the endpoints do not return it"


@dataclass(frozen=True, kw_only=True)
class Report(Verdict):
    """`report.json`, field by field. `n` counts answerable rows that both models answered.

    `difference` is tuned minus base in the gate's primary metric, or the win rate minus one half. `clusters`
    is the number of clusters, None if all rows are independent. `unavailable` maps a metric to the reason.
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
    metrics: dict[str, MetricContrast]
    unavailable: dict[str, str]
    slices: dict[str, SliceContrast]
    declined: Declined
    mcnemar_p: float | None
    seconds: dict[str, Latency]
    gate: Gate
    lineage: dict[str, Any]
    clusters: int | None
    packs: dict[str, PackResult]
    judge: Judging | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_rows(
    rows: Iterable[ScoredRow],
    gate: Gate,
    *,
    lineage: Mapping[str, Any] | None = None,
    measured: Sequence[Measured] = (),
    packs: Mapping[str, PackResult] | None = None,
    judge: Judging | None = None,
) -> Report:
    """Compare both models' answers. Reads `rows` once; equal rows and gate give an equal report.

    `measured` are more metrics of the same lines. `packs` can lead to hold; `judge` decides only if the
    gate's primary metric is the win rate.
    """
    scores = score_rows(rows)
    for one in measured:
        scores.metrics.update(one.columns)
    counted = scores.where(scores.counted)
    clusters = clusters_of(counted)
    cluster_count = None if clusters is None else int(clusters.max()) + 1
    metrics = metric_contrasts(counted)
    known = {name: contrast for name, contrast in metrics.items() if contrast.n or name != "answer_tokens"}
    declined = declined_of(scores)
    why_not = [Measured({}, {name: NOT_RETURNED for name in metrics if name not in known}), *measured]
    expected, answered = len(scores), int(scores.answered.sum())
    difference: float | None
    primary: Verdict
    if gate.primary == WIN_RATE:
        primary, (difference, interval) = judge or NO_JUDGE, _over_one_half(judge)
    else:
        contrast, differences = metrics[gate.primary], counted.metrics[gate.primary].difference
        difference, interval = contrast.difference, contrast.difference_ci
        needed = rows_needed(differences, gate.margin, gate.min_rows, clusters=clusters)
        primary = decide_metric(contrast, cluster_count, needed, gate)
    verdict = decide(
        primary,
        gate,
        expected=expected,
        failed=expected - answered,
        declined_tuned=declined.tuned,
        identical=len(counted) >= gate.min_rows and bool(counted.same.all()),
        packs=packs or {},
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
        metrics=known,
        unavailable={name: why for one in why_not for name, why in one.unavailable.items()},
        slices=slice_contrasts(scores, gate.answer_metric),
        declined=declined,
        mcnemar_p=None if clusters is not None else metrics["exact_match"].p,
        seconds={"base": latency_of(scores.seconds.base), "tuned": latency_of(scores.seconds.tuned)},
        gate=gate,
        lineage=dict(lineage or {}),
        clusters=cluster_count,
        packs=dict(packs or {}),
        judge=judge,
    )


def _over_one_half(judge: Judging | None) -> tuple[float | None, Interval | None]:
    """The judge's win rate minus one half, and its CI."""
    rate = judge.preference if judge else None
    if rate is None or rate.win_rate is None or rate.win_rate_ci is None:
        return None, None
    low, high = rate.win_rate_ci
    return rate.win_rate - 0.5, Interval(low - 0.5, high - 0.5)
