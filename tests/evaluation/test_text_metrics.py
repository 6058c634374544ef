import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from nltk_data import write_nltk_data

from evaluation.answer_metrics import token_f1
from evaluation.metrics.grader import read_grades
from evaluation.metrics.text_metrics import BACKENDS, TEXT_METRICS, require_complete, score_texts
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, summary_table
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate
from phi3flow.core.errors import Phi3flowError

AZURE, EVALS = BACKENDS
REFERENCES = [
    "Paris is the capital of France.",
    "It melts at 1538 degrees. Nobody doubts it.",
    "No, it isn't.",
    "Bill Gates and Paul Allen founded Microsoft in 1975.",
]
BASE = ["", "It melts at 3.5 degrees.", "No, it isn't.", "Steve Jobs did."]
TUNED = ["The capital is Paris.", "Nobody doubts it. It melts.", "Yes, it is!", REFERENCES[3]]
UMLAUT = 4


def rows():
    made = [
        ScoredRow(i + 1, None, None, [], reference, Answer(base, None), Answer(tuned, None))
        for i, (reference, base, tuned) in enumerate(zip(REFERENCES, BASE, TUNED, strict=True))
    ]
    umlaut = Answer("Zürich ist schön - nicht?", None)
    asked = [{"role": "user", "content": "Where?"}]
    made.append(ScoredRow(5, None, None, asked, "Zürich ist sehr schön.", umlaut, umlaut))
    made.append(ScoredRow(6, None, None, asked, "x", None, umlaut))
    made.append(ScoredRow(7, None, None, asked, "I do not know that.", umlaut, umlaut))
    return made


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """By backend, with files in the shape of NLTK's data where NLTK looks for them, and without any."""
    folder = tmp_path_factory.mktemp("backends")
    write_nltk_data(folder / "data")

    def score(backend):
        return score_texts(rows(), backend, folder)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:  # children, which mostly import
        patch.setenv("HOME", str(folder))
        patch.delenv("NLTK_DATA", raising=False)
        without = pool.map(score, BACKENDS)
        without = dict(zip(BACKENDS, without, strict=True))
        patch.setenv("NLTK_DATA", str(folder / "data"))
        return {
            "without": without,
            "with": dict(zip(BACKENDS, pool.map(score, BACKENDS), strict=True)),
        }


@pytest.fixture
def scored(graded):
    return graded["with"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_metric_is_there_for_every_line_that_counts(scored, backend):
    columns = scored[backend].columns
    assert set(columns) == {"rouge_l", "bleu", "gleu", "meteor", "f1_score"}
    assert scored[backend].unavailable == {}
    for column in columns.values():
        for side in column:
            assert np.isnan(side).tolist() == [False] * 5 + [True] * 2
            assert ((side[:5] >= 0) & (side[:5] <= 1)).all()
    assert columns["bleu"].tuned[3] == columns["gleu"].tuned[3] == columns["rouge_l"].tuned[3] == 1.0
    assert columns["f1_score"].tuned[3] == 1.0
    assert columns["f1_score"].base[0] == columns["bleu"].base[0] == 0.0
    assert scored[backend].package.startswith(f"{backend} ")


def test_both_packages_agree(scored):
    for metric in TEXT_METRICS:
        one, other = scored[AZURE].columns[metric], scored[EVALS].columns[metric]
        for mine, yours in zip(one, other, strict=True):
            assert mine[:UMLAUT] == pytest.approx(yours[:UMLAUT]), metric


def test_the_documented_difference(scored):
    """azure-ai-evaluation splits text beyond ASCII by unicode classes, promptflow-evals beyond Latin-1."""
    one, other = scored[AZURE].columns, scored[EVALS].columns
    assert one["bleu"].base[UMLAUT] != pytest.approx(other["bleu"].base[UMLAUT])
    assert one["f1_score"].base[UMLAUT] == pytest.approx(other["f1_score"].base[UMLAUT])


def test_their_f1_is_ours_but_for_two_empty_texts(scored):
    for side, answers in enumerate((BASE, TUNED)):
        ours = [token_f1(answer, reference) for answer, reference in zip(answers, REFERENCES, strict=True)]
        assert scored[AZURE].columns["f1_score"][side][:UMLAUT] == pytest.approx(ours)


def has_nltk_data():
    import nltk

    return any(Path(path, "corpora/wordnet.zip").exists() for path in nltk.data.path)


@pytest.mark.skipif(has_nltk_data(), reason="NLTK's data is installed system-wide")
def test_metrics_without_their_data_are_not_available_and_the_others_come_all_the_same(graded):
    azure, evals = graded["without"][AZURE], graded["without"][EVALS]
    assert set(azure.columns) == {"rouge_l", "f1_score"}
    assert set(azure.unavailable) == {"bleu", "gleu", "meteor"}
    for metric, column in azure.columns.items():
        for mine, yours in zip(column, graded["with"][AZURE].columns[metric], strict=True):
            assert np.array_equal(mine, yours, equal_nan=True)
    assert (evals.columns, set(evals.unavailable)) == ({}, set(TEXT_METRICS))
    command = "python -m nltk.downloader punkt punkt_tab perluniprops wordnet"
    report = compare_rows(rows(), load_gate(), measured=[azure])
    page = render_html(report, rows())
    assert f"BLEU, GLEU, METEOR: not available: NLTK's data is missing: {command}" in summary_table(report)
    assert f"BLEU, GLEU, METEOR: not available: NLTK&#39;s data is missing: {command}" in page
    assert set(json.loads(json.dumps(report.as_dict()))["unavailable"]) >= {"bleu", "gleu", "meteor"}


@pytest.mark.parametrize("fault", ["absent", None, math.nan, "cut"])
def test_a_missing_score_is_named(tmp_path, fault):
    """Line 2, of whose tuned answer there is no score, in what a package left behind."""
    made = [
        {"line": line, "side": side, "grades": dict.fromkeys(TEXT_METRICS, 0.5)}
        for line in range(1, 6)
        for side in ("base", "tuned")
    ]
    if fault == "absent":
        del made[3]["grades"]["gleu"]
    elif fault == "cut":
        del made[3:]
    else:
        made[3]["grades"]["gleu"] = fault
    path = tmp_path / "grades.jsonl"
    head = {"package": "a package 1.0", "unavailable": {}}
    path.write_text("".join(json.dumps(row) + "\n" for row in [head, *made]), encoding="utf-8")
    name = "rouge_l" if fault == "cut" else "gleu"
    with pytest.raises(Phi3flowError, match=rf"a package 1\.0 gave no {name} for line 2"):
        require_complete(rows(), read_grades(path, TEXT_METRICS, 7))


def test_a_package_that_is_missing_is_named(tmp_path):
    with pytest.raises(Phi3flowError, match="phi3flow-no-such-backend is not installed"):
        score_texts(rows(), "phi3flow-no-such-backend", tmp_path)
