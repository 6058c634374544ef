"""A gate whose primary metric is the win rate: a judge decides, and the limits still hold."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from gates import WITHOUT_PACKS

from evaluation.judge.pairwise import UNREADABLE, Judgment
from evaluation.judge.pairwise_summary import judgment_rows, sum_up
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, render_markdown, summary_table
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate
from phi3flow.app.cli import main
from phi3flow.core.jsonl import write_jsonl

GATE = replace(WITHOUT_PACKS, primary="win_rate")
PROMPT = [{"role": "user", "content": "Where?"}]


def judged(**counts):
    """Judgments of so many rows of each kind, whose answers are equally long but for a few letters."""
    kinds = {
        "wins": {"preference": 1.0, "first_order": "tuned", "second_order": "tuned"},
        "losses": {"preference": 0.0, "first_order": "base", "second_order": "base"},
        "flips": {"preference": 0.5, "first_order": "base", "second_order": "tuned"},
        "failed": {"preference": None, "error": UNREADABLE},
        "speaks": {"preference": None, "addressed": ("tuned",)},
    }
    made = [kinds[kind] for kind, count in counts.items() for _ in range(count)]
    return [
        Judgment(str(i + 1), base_chars=20, tuned_chars=18 + i % 5, **kind) for i, kind in enumerate(made)
    ]


def prompt(i):
    return [{"role": "user", "content": f"Where is {i}?"}]


def rows(n):
    """Rows that no metric can tell apart, of which every answer differs."""
    said = ("Rome", "Oslo")
    return [
        ScoredRow(i + 1, None, None, prompt(i), "Paris.", *(Answer(f"{name} {i}.", None) for name in said))
        for i in range(n)
    ]


def report(gate=GATE, n=None, **counts):
    judgments = judged(**counts)
    return compare_rows(rows(n or max(len(judgments), 1)), gate, judge=sum_up("phi3-judge", judgments, gate))


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({"wins": 80, "losses": 20}, "promote"),
        ({"wins": 20, "losses": 80}, "hold"),
        ({"wins": 52, "losses": 48}, "not_enough_data"),
        ({"flips": 100}, "not_enough_data"),  # whichever comes first: ties throughout
        ({"wins": 8, "losses": 2}, "not_enough_data"),
        ({"wins": 80, "losses": 19, "failed": 1}, "promote"),
        ({"wins": 80, "losses": 10, "failed": 10}, "not_enough_data"),
        ({"wins": 80, "losses": 10, "speaks": 10}, "not_enough_data"),
        ({"failed": 100}, "not_enough_data"),
    ],
)
def test_the_win_rate_decides(counts, word):
    found = report(**counts)
    assert found.verdict == word, found.reasons
    assert found.metrics["exact_match"].difference == 0


def test_the_report_says_what_decided():
    found = report(wins=80, losses=20)
    assert found.difference == pytest.approx(0.3)
    assert found.difference_ci.low > 0.15
    assert found.rows_needed == found.judge.rows_needed
    page = render_html(found, rows(100))
    assert "They decide the verdict above." in page
    assert "minus one half" in page
    assert "Tuned wins 80.0" in summary_table(found)
    assert "Tuned wins 80.0" in render_markdown(found)
    informed = report(gate=load_gate(), wins=80, losses=20)
    assert (informed.verdict, informed.difference) == ("not_enough_data", 0.0)
    assert "do not change the verdict" in render_html(informed, rows(100))


def test_a_limit_holds_what_the_judge_prefers():
    lost = rows(98) + [
        ScoredRow(i, None, None, PROMPT, "Paris.", Answer("Rome.", None), None) for i in (99, 100)
    ]
    preferred = sum_up("phi3-judge", judged(wins=90, losses=8), GATE)
    found = compare_rows(lost, GATE, judge=preferred)
    assert (preferred.verdict, found.verdict) == ("promote", "hold")
    assert found.reasons[0].startswith("2 of 100 lines failed")


def test_without_a_judge_nothing_is_asked(tmp_path, capsys):
    gate, answers = tmp_path / "gate.toml", tmp_path / "answers.jsonl"
    gate.write_text('[gate]\nprimary = "win_rate"\n', encoding="utf-8")
    write_jsonl(answers, [{"line": 1, "answer": "Rome."}])
    write_jsonl(
        tmp_path / "test.jsonl", [{"messages": [*PROMPT, {"role": "assistant", "content": "Paris."}]}]
    )
    command = ["compare", "--data", str(tmp_path / "test.jsonl"), "--base-answers", str(answers)]
    command += ["--tuned-answers", str(answers), "--out", str(tmp_path / "out"), "--gate", str(gate)]
    assert main(command) == 2
    assert "--judge NAME" in capsys.readouterr().err
    assert compare_rows(rows(60), GATE).verdict == "not_enough_data"


@pytest.mark.parametrize(
    ("counts", "word", "failures"),
    [
        ({"wins": 80, "losses": 19, "failed": 1}, "promote", 1),
        ({"wins": 80, "losses": 10, "failed": 7, "speaks": 3}, "not_enough_data", 10),
    ],
)
def test_the_verb_sees_what_the_judge_failed_on(tmp_path, capsys, counts, word, failures):
    judgments = judged(**counts)
    path = tmp_path / "judgments.jsonl"
    write_jsonl(path, judgment_rows(judgments))
    main(["verdict", str(path), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["n"], said["failed"]) == (word, 100 - failures, failures)
    assert sum(said["failures"].values()) == failures
    assert f"{failures} of 100 rows have no preference" in " ".join(said["reasons"])
    summed = sum_up("phi3-judge", judgments, load_gate())
    assert (summed.verdict, summed.reasons) == (said["verdict"], said["reasons"])
    assert Counter(said["failures"])[UNREADABLE] == counts["failed"]
