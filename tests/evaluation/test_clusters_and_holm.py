from dataclasses import replace

import numpy as np
import pytest
from gates import WITHOUT_PACKS

from evaluation.report.comparison import compare_rows
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.statistics.intervals import (
    LARGE,
    design_effect,
    holm,
    mean_difference,
    paired_proportions,
    rows_needed,
    wilson,
)
from evaluation.statistics.scores import Column, Measured

RIGHT, WRONG = "It is in Paris.", "It is in Rome."


def judged(base, tuned, clusters=None):
    """Rows from columns of right (1) and wrong (0)."""
    texts = (WRONG, RIGHT)
    return [
        ScoredRow(
            line=i + 1,
            prompt_id=None,
            slice=None,
            messages=[{"role": "user", "content": f"Where is {i}?"}],
            reference=RIGHT,
            base=Answer(texts[int(was)], None),
            tuned=Answer(texts[int(now)], None),
            cluster=None if clusters is None else clusters[i],
        )
        for i, (was, now) in enumerate(zip(base, tuned, strict=True))
    ]


def test_holm_steps_down_and_never_falls():
    # 4 x .01, then 3 x .02, then 2 x .022 = .044, which may not be below .06, then 1 x .09
    adjusted = holm({"a": 0.01, "b": 0.02, "c": 0.022, "d": 0.09})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.09})


def test_holm_leaves_out_what_has_no_p_and_never_exceeds_one():
    assert holm({"a": None, "b": 0.03}) == {"a": None, "b": 0.03}
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_holm_is_rarely_wrong_about_any_of_many_metrics():
    rng = np.random.default_rng(0)
    draws = rng.uniform(size=(2000, 8))
    wrong = [min(holm(dict(enumerate(row))).values()) < 0.05 for row in draws]
    assert 0.03 <= np.mean(wrong) <= 0.065


def test_the_report_carries_adjusted_p():
    report = compare_rows(judged([0] * 40 + [1] * 10, [1] * 30 + [0] * 10 + [1] * 10), WITHOUT_PACKS)
    metrics = report.metrics
    assert metrics["exact_match"].p == report.mcnemar_p
    assert all(metric.p <= metric.p_holm <= 1 for metric in metrics.values())
    assert metrics["exact_match"].p_holm == pytest.approx(3 * metrics["exact_match"].p)


def test_further_metrics_have_intervals_of_their_own():
    base, tuned = np.linspace(0, 0.5, 50), np.linspace(0.2, 0.9, 50)
    base[0] = tuned[0] = np.nan  # the line whose base failed
    rows = judged([0] * 50, [1] * 50)
    rows[0] = replace(rows[0], base=None)
    report = compare_rows(rows, WITHOUT_PACKS, measured=[Measured({"bleu": Column(base, tuned)}, {})])
    bleu = report.metrics["bleu"]
    assert (bleu.n, bleu.difference) == (49, pytest.approx(np.nanmean(tuned - base)))
    assert bleu.difference_ci.low < bleu.difference < bleu.difference_ci.high
    assert bleu.p < 0.001


def test_copies_of_a_row_add_no_certainty():
    rng = np.random.default_rng(1)
    was, now = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    once = paired_proportions(was, now)
    clusters = np.repeat(np.arange(60), 5)
    copied = paired_proportions(np.repeat(was, 5), np.repeat(now, 5), clusters=clusters)
    assert copied == pytest.approx(once, abs=0.004)  # the design effect is estimated with 59 of 60
    assert design_effect(np.repeat(now - was, 5), clusters) == pytest.approx(5 * 60 / 59)
    alone = mean_difference(now - was, seed=0, bounded=True)
    five = mean_difference(np.repeat(now - was, 5), seed=0, bounded=True, clusters=clusters)
    assert five.interval == pytest.approx(alone.interval)
    assert five.p == pytest.approx(alone.p)


def test_where_all_agree_a_cluster_counts_as_one_row():
    clusters = np.repeat(np.arange(10), 20)
    assert design_effect(np.ones(200), clusters) == 20
    assert design_effect([1.0, 0.0, 1.0], np.zeros(3, dtype=int)) == 3
    assert wilson(200 / 20, 200 / 20) == pytest.approx(wilson(10, 10))
    many = mean_difference(np.ones(200), seed=0, bounded=True, clusters=clusters).interval
    assert many == mean_difference(np.ones(10), seed=0, bounded=True).interval


def test_rows_needed_grow_with_the_design_effect():
    values = np.repeat([1.0, -1.0, 1.0, 0.0, 0.0, 0.0], 10)
    needed = rows_needed(values, 0.0, 1)
    assert rows_needed(values, 0.0, 1, clusters=np.repeat(np.arange(6), 10)) == pytest.approx(
        12 * needed, rel=0.01
    )


def documents(rng):
    """Forty documents with five questions each, which a model mostly knows all or not at all."""
    known = rng.random((2, 40)) < np.array([[0.5], [0.6]])
    return [np.where(rng.random(200) < 0.9, np.repeat(side, 5), rng.random(200) < 0.5) for side in known]


def test_clustered_intervals_cover_the_truth_and_plain_ones_do_not():
    rng = np.random.default_rng(3)
    truth, clusters = 0.09, np.repeat(np.arange(40), 5)
    score, plain, bootstrap = [], [], []
    for _ in range(200):
        was, now = documents(rng)
        score.append(paired_proportions(was, now, clusters=clusters))
        plain.append(paired_proportions(was, now))
        change = now.astype(float) - was
        bootstrap.append(mean_difference(change, seed=0, bounded=True, clusters=clusters).interval)
    for intervals in (score, bootstrap):
        assert 0.91 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99
    assert np.mean([low <= truth <= high for low, high in plain]) < 0.8


def test_few_clusters_do_not_promote_however_many_rows():
    labels = [f"document {i % 12}" for i in range(240)]
    report = compare_rows(judged([0] * 240, [1] * 240, labels), WITHOUT_PACKS)
    assert (report.n, report.clusters, report.mcnemar_p) == (240, 12, None)
    assert report.verdict == "not_enough_data"
    assert "at least 30 clusters of rows" in report.reasons[0]
    independent = compare_rows(judged([0] * 240, [1] * 240), WITHOUT_PACKS)
    assert (independent.clusters, independent.verdict) == (None, "promote")
    distinct = compare_rows(judged([0] * 240, [1] * 240, list(map(str, range(240)))), WITHOUT_PACKS)
    assert distinct.clusters is None


@pytest.mark.parametrize("size", [1, 2])
def test_at_many_rows_the_normal_interval_is_the_bootstraps(size):
    rng = np.random.default_rng(5)
    values = rng.beta(2, 5, LARGE * size) - 0.284
    clusters = np.arange(LARGE * size) // size if size > 1 else None
    normal = mean_difference(values, seed=0, bounded=True, clusters=clusters)
    fewer = None if clusters is None else clusters[:-size]
    drawn = mean_difference(values[:-size], seed=0, bounded=True, clusters=fewer)
    width = drawn.interval.high - drawn.interval.low
    assert normal.interval == pytest.approx(drawn.interval, abs=0.03 * width)
    assert 0.001 < normal.p < 0.999
    assert normal.p == pytest.approx(drawn.p, abs=0.02)
