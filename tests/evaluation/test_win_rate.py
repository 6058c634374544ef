import random

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from evaluation.statistics.win_rate import Preference, win_rate
from evaluation.verdict.gate import load_gate
from evaluation.verdict.preference_decision import decide_preference

BASE_CHARS = 100


def rows(*kinds):
    """From (how many, preference, by how much tuned is longer)."""
    spread = [(preference, longer) for count, preference, longer in kinds for _ in range(count)]
    return [
        Preference(str(i), preference, BASE_CHARS, BASE_CHARS + longer)
        for i, (preference, longer) in enumerate(spread)
    ]


def judged(seed, n, quality, taste, *, longer_by=0, ties=0.0):
    """A judge who prefers tuned by `quality` and length by `taste`, both on the logit scale."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        longer = round(rng.gauss(longer_by, 60))
        chance = expit(quality + taste * np.tanh(longer / 60))
        preference = 0.5 if rng.random() < ties else float(rng.random() < chance)
        made.append(Preference(str(i), preference, 400, 400 + longer))
    return made


def test_win_rate_and_its_standard_error():
    found = win_rate(rows((6, 1, 5), (3, 0, -5), (1, 0.5, 0)))
    assert (found.n, found.win_rate) == (10, 0.65)
    assert found.standard_error == pytest.approx(np.std([1] * 6 + [0] * 3 + [0.5], ddof=1) / 10**0.5)
    low, high = found.win_rate_ci
    assert low < 0.65 < high


def test_length_control_is_the_logistic_regression_of_the_source():
    """Against a general optimiser: the likeliest intercept and coefficient of the length term."""
    made = judged(1, 800, quality=0.4, taste=1.0, longer_by=30, ties=0.1)
    longer = np.array([row.tuned_chars - row.base_chars for row in made])
    preferred = np.array([row.preference for row in made])
    term = np.tanh(longer / longer.std(ddof=1))

    def loss(coefficients):
        likely = expit(coefficients[0] + coefficients[1] * term)
        return -float(np.sum(preferred * np.log(likely) + (1 - preferred) * np.log(1 - likely)))

    intercept, effect = minimize(loss, [0.0, 0.0]).x
    found = win_rate(made).length
    assert found.win_rate == pytest.approx(expit(intercept), abs=0.002)
    assert found.effect == pytest.approx(effect, abs=0.02)


def test_a_taste_for_length_is_taken_out():
    found = win_rate(judged(2, 2000, quality=0.0, taste=2.0, longer_by=60))
    assert found.win_rate > 0.7
    assert found.length.win_rate == pytest.approx(0.5, abs=0.05)
    assert found.length.effect_ci.low > 0


def test_intervals_cover():
    inside = {"plain": 0, "length": 0}
    runs = 300
    truth = 0.5 * 0.3 + 0.7 * expit(0.5)
    for seed in range(runs):
        found = win_rate(judged(seed, 120, quality=0.5, taste=1.0, ties=0.3)).length.win_rate_ci
        inside["length"] += found.low <= truth <= found.high
        rng = random.Random(seed)
        plain = win_rate([Preference(str(i), rng.choice([0, 0.5, 1, 1]), 9, 9) for i in range(60)])
        inside["plain"] += plain.win_rate_ci.low <= 0.625 <= plain.win_rate_ci.high
    assert all(0.92 <= count / runs <= 0.98 for count in inside.values()), inside


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        ([], "no rows"),
        ([(5, 1, 3), (4, 0, -2)], "too few"),
        ([(20, 1, 7), (20, 0, 7)], "same number"),
        ([(20, 1, 5), (1, 1, 9), (20, 0, -5)], "length alone"),
        ([(20, 1, 5), (20, 1, 9)], "length alone"),
        ([(20, 0, 5), (20, 0, 9)], "length alone"),
    ],
)
def test_no_length_controlled_rate_where_the_rows_allow_none(kinds, why):
    found = win_rate(rows(*kinds)).length
    assert found.win_rate is found.win_rate_ci is found.effect is None
    assert why in found.note


def test_equal_lengths_need_no_control_and_unanimous_rows_of_mixed_length_allow_it():
    equal = win_rate(rows((30, 1, 0), (10, 0, 0)))
    assert (equal.length.win_rate, equal.length.win_rate_ci) == (0.75, equal.win_rate_ci)
    unanimous = win_rate(rows((50, 1, 20), (50, 1, -20))).length
    assert unanimous.win_rate > 0.95
    assert unanimous.win_rate_ci.low > 0.85


def test_rows_that_all_agree_claim_no_certainty():
    ties = win_rate(rows((100, 0.5, 3), (100, 0.5, -3)))
    assert ties.win_rate_ci.low < 0.499
    assert ties.win_rate_ci.high > 0.501
    wins = win_rate(rows((100, 1, 0)))
    assert 0.9 < wins.win_rate_ci.low < 0.99


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (judged(3, 200, quality=1.0, taste=0.5), "promote"),
        (judged(3, 200, quality=-1.0, taste=0.5), "hold"),
        (judged(3, 200, quality=0.0, taste=0.0), "not_enough_data"),
        (judged(3, 400, quality=0.0, taste=4.0, longer_by=60), "not_enough_data"),  # merely longer
        (judged(3, 400, quality=1.0, taste=4.0, longer_by=-60), "not_enough_data"),  # merely shorter
        (rows((200, 1, 9)), "not_enough_data"),
        (rows((20, 1, 9), (5, 1, -3)), "not_enough_data"),  # fewer than the gate asks for
        (rows((100, 1, 9), (100, 1, -9)), "promote"),
        (rows((100, 0.5, 9), (100, 0.5, -9)), "not_enough_data"),
        ([], "not_enough_data"),
    ],
)
def test_verdict_on_preferences(made, word):
    verdict = decide_preference(win_rate(made), load_gate())
    assert verdict.verdict == word, verdict.reasons
    assert verdict.reasons


def test_equal_models_are_rarely_promoted_even_by_a_judge_who_likes_length():
    gate = load_gate()
    words = [
        decide_preference(win_rate(judged(seed, 100, 0.0, taste=3.0, longer_by=40)), gate).verdict
        for seed in range(300)
    ]
    assert words.count("promote") <= 15  # 2.5 % of 300 and three standard errors


def test_the_rows_that_would_settle_it_are_named():
    verdict = decide_preference(win_rate(rows((20, 1, 5), (17, 1, -5), (14, 0, 5), (14, 0, -5))), load_gate())
    assert verdict.verdict == "not_enough_data"
    assert 100 < verdict.rows_needed < 2000
    assert f"About {verdict.rows_needed} rows" in verdict.reasons[-1]
