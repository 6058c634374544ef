"""Votes in `preferences.jsonl`: whole lines from many writers, read by the statistics and by TRL."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from voter import ballot, cast

from evaluation.verdict.preference_file import load_judgments
from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput
from ui.store.votes import append_vote, score_of, vote_on


def test_fifty_votes_of_two_writers_are_read_by_the_verdict(tmp_path, capsys):
    path = tmp_path / "preferences.jsonl"
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(cast, [path, path], [range(30), range(20, 50)]))
    rows = load_judgments(path).preferences
    assert sorted(row.id for row in rows) == sorted(f"round-{number}" for number in range(50))
    assert main(["verdict", str(path), "--json"]) in {0, 3, 4}
    verdict = json.loads(capsys.readouterr().out)
    score = score_of(path)
    assert (score.n, score.win_rate) == (50, verdict["win_rate"]) == (50, 0.7)
    assert list(score.win_rate_ci) == verdict["win_rate_ci"]


def test_a_ballot_counts_once_and_tells_what_was_voted(tmp_path):
    path = tmp_path / "preferences.jsonl"
    assert vote_on(path, "round-1") is None and score_of(path) is None
    append_vote(path, *ballot(1), "tuned")
    append_vote(path, *ballot(1), "base")
    assert vote_on(path, "round-1") == "tuned" and len(path.read_text().splitlines()) == 1
    row = json.loads(path.read_text())
    assert row["chosen"] == [{"role": "assistant", "content": "t" * 24}]
    assert row["rejected"] == [{"role": "assistant", "content": "b" * 21}]
    append_vote(path, *ballot(2), "both_bad")
    assert [json.loads(path.read_text().splitlines()[1])[name] for name in ("chosen", "rejected")] == [
        None,
        None,
    ]


def test_17_votes_are_read_once_and_not_at_each_look(tmp_path):
    path = tmp_path / "preferences.jsonl"
    for number in range(40):
        append_vote(path, *ballot(number), "tuned")
    assert vote_on(path, "round-39") == "tuned" and score_of(path) is score_of(path)
    lines, stamp = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(lines))  # whoever reads again sees this
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert vote_on(path, "round-0") == "tuned" and score_of(path).n == 40
    path.write_bytes(lines)
    append_vote(path, *ballot(40), "base")
    assert vote_on(path, "round-40") == "base" and score_of(path).n == 41


def test_the_vote_keeps_the_system_prompt_that_both_were_asked_under(tmp_path):
    append_vote(tmp_path / "votes", *ballot(0), "tie", system="Be brief.")
    row = json.loads((tmp_path / "votes").read_text())
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]


def test_a_line_that_a_crash_cut_short_is_named_and_costs_no_other(tmp_path):
    path = tmp_path / "preferences.jsonl"
    path.write_text('{"id": "round-0", "vo')
    append_vote(path, *ballot(0), "tie")
    assert vote_on(path, "round-0") == "tie"
    with pytest.raises(BadInput, match=r"preferences\.jsonl:1"):
        score_of(path)
