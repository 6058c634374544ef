import random
from dataclasses import replace

import pytest
from gates import WITHOUT_PACKS

from evaluation.report.comparison import compare_rows
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.decision import Decision, exit_code
from evaluation.verdict.gate import load_gate
from phi3flow.core.errors import BadInput

RIGHT, WRONG, UNKNOWN = "It is in Paris.", "It is in Rome.", "Sorry, I do not know that."


def row(line, base, tuned, reference=RIGHT):
    """A row whose answers are given as text; None failed."""
    answers = [None if text is None else Answer(text, None) for text in (base, tuned)]
    return ScoredRow(
        line, None, None, [{"role": "user", "content": f"Where is {line}?"}], reference, *answers
    )


def rows(**counts):
    """So many rows of each kind, numbered from 1."""
    kinds = {
        "both": (RIGHT, RIGHT, RIGHT),
        "gained": (WRONG, RIGHT, RIGHT),
        "lost": (RIGHT, WRONG, RIGHT),
        "neither": (WRONG, WRONG, RIGHT),
        "tuned_failed": (RIGHT, None, RIGHT),
        "base_failed": (None, RIGHT, RIGHT),
        "both_decline": (UNKNOWN, UNKNOWN, UNKNOWN),
        "tuned_invents": (UNKNOWN, WRONG, UNKNOWN),
    }
    made = [kinds[kind] for kind, count in counts.items() for _ in range(count)]
    return [row(line, *kind) for line, kind in enumerate(made, start=1)]


@pytest.mark.parametrize(
    ("counts", "changes", "word"),
    [
        ({"gained": 90, "neither": 10}, {}, "promote"),
        ({"lost": 30, "both": 70}, {}, "hold"),
        ({"gained": 12, "lost": 10, "both": 78}, {}, "not_enough_data"),
        ({"both": 200}, {}, "hold"),  # the same answers: the base served as tuned
        ({"both": 20}, {}, "not_enough_data"),  # the same answers, but few enough for chance
        ({"gained": 20, "both": 80}, {"margin": 0.3}, "hold"),
        ({"gained": 20, "both": 80}, {"margin": 0.2}, "not_enough_data"),
        ({"both": 398, "gained": 1, "lost": 1}, {"margin": -0.02}, "promote"),
        ({"gained": 10}, {}, "not_enough_data"),  # all right, but ten
        ({"gained": 10}, {"min_rows": 10}, "promote"),
        ({"gained": 90, "tuned_failed": 1}, {}, "hold"),
        ({"gained": 99, "tuned_failed": 1}, {}, "promote"),
        ({"gained": 99, "base_failed": 5}, {"max_failed_share": 0.05}, "promote"),
        ({"gained": 90, "both_decline": 10, "tuned_invents": 30}, {}, "hold"),
        ({"gained": 90, "both_decline": 30, "tuned_invents": 10}, {}, "promote"),
        ({"gained": 90, "both_decline": 22, "tuned_invents": 18}, {}, "not_enough_data"),
        ({"gained": 90, "both_decline": 1}, {}, "not_enough_data"),  # one of one is no share of half
        ({"gained": 90, "both_decline": 40}, {"min_declined": 1.0}, "not_enough_data"),  # nothing proves all
        ({"both_decline": 40}, {}, "not_enough_data"),
        ({}, {}, "not_enough_data"),
        ({"gained": 90, "neither": 10}, {"primary": "token_f1"}, "promote"),
    ],
)
def test_verdict(counts, changes, word):
    report = compare_rows(rows(**counts), replace(WITHOUT_PACKS, **changes))
    assert report.verdict == word, report.reasons
    assert report.reasons


def test_ten_rows_are_not_enough_and_the_number_that_would_be_is_named():
    report = compare_rows(rows(gained=3, lost=1, both=4, neither=2), load_gate())
    assert report.verdict is Decision.NOT_ENOUGH_DATA
    assert report.rows_needed == 71  # 7.849 * 0.36 / 0.2^2
    assert "71 rows" in " ".join(report.reasons)


def test_models_without_a_difference_are_rarely_promoted():
    rng = random.Random(5)
    gate = WITHOUT_PACKS
    words = []
    for _ in range(80):
        counts = {"gained": 0, "lost": 0, "both": 0, "neither": 0}
        for kind in rng.choices(list(counts), weights=[1, 1, 4, 4], k=60):
            counts[kind] += 1
        words.append(compare_rows(rows(**counts), gate).verdict)
    assert words.count(Decision.PROMOTE) <= 5  # 2.5 % of 80 is 2
    assert words.count(Decision.NOT_ENOUGH_DATA) > 70


def test_failed_lines_are_counted_and_left_out():
    report = compare_rows(rows(gained=40, tuned_failed=2, base_failed=1), load_gate())
    assert (report.expected, report.answered, report.failed, report.n) == (43, 40, 3, 40)
    assert (report.base.failed, report.tuned.failed) == (1, 2)
    assert report.base.exact_match == 0.0
    assert report.tuned.exact_match == 1.0


def test_unanswerable_rows_are_kept_out_of_the_metrics():
    report = compare_rows(rows(neither=50, both_decline=30, tuned_invents=10), load_gate())
    assert report.n == 50
    assert report.base.exact_match == 0.0
    assert (report.declined.n, report.declined.base, report.declined.tuned) == (40, 1.0, 0.75)


@pytest.mark.parametrize(
    ("word", "failed", "code"),
    [("promote", 0, 0), ("promote", 2, 5), ("hold", 2, 3), ("not_enough_data", 2, 4)],
)
def test_exit_codes(word, failed, code):
    assert exit_code(Decision(word), failed) == code


def test_a_gate_file_names_only_what_differs(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text("[gate]\nmargin = 0.05\n[limits]\nmin_declined = 1\n", encoding="utf-8")
    assert load_gate(path) == replace(load_gate(), margin=0.05, min_declined=1)


def test_every_problem_of_a_gate_file_is_told_at_once(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text(
        '[gate]\nmargn = 0.1\nprimary = "exact"\nmin_rows = 2.5\nmargin = nan\n'
        "[limit]\nx = 1\n[limits]\nmax_failed_share = true\nmin_declined = 3\n",
        encoding="utf-8",
    )
    with pytest.raises(BadInput) as caught:
        load_gate(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    for part in (
        "gate.margn: unknown (did you mean 'margin'?",
        "limit: unknown (did you mean 'limits'?",
        "gate.primary: unknown 'exact'",
        "gate.min_rows: must be a valid integer, not 2.5",
        "gate.margin: must be a finite number, not nan",
        "limits.max_failed_share: must be a valid number, not True",
        "limits.min_declined: must be less than or equal to 1, not 3",
    ):
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 7


@pytest.mark.parametrize("content", [None, "[gate\n", "gate = 3\n"])
def test_an_unreadable_gate_file_is_bad_input(tmp_path, content):
    path = tmp_path / "gate.toml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"gate\.toml"):
        load_gate(path)
