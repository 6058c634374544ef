import json
import math
from concurrent.futures import ThreadPoolExecutor

import nltk
import numpy as np
import pytest
from nltk.tokenize import word_tokenize

from evaluation.answer_metrics import token_f1
from evaluation.metrics.nltk_stand_in import NEEDED, write_stand_in
from evaluation.metrics.text_metrics import BACKENDS, read_scores, score_texts
from evaluation.metrics.text_metrics_child import EVALUATORS
from evaluation.rows import Answer, Judged
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
        Judged(i + 1, None, None, [], reference, Answer(base, None), Answer(tuned, None))
        for i, (reference, base, tuned) in enumerate(zip(REFERENCES, BASE, TUNED, strict=True))
    ]
    umlaut = Answer("Zürich ist schön - nicht?", None)
    asked = [{"role": "user", "content": "Where?"}]
    made.append(Judged(5, None, None, asked, "Zürich ist sehr schön.", umlaut, umlaut))
    made.append(Judged(6, None, None, asked, "x", None, umlaut))
    made.append(Judged(7, None, None, asked, "I do not know that.", umlaut, umlaut))
    return made


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    with ThreadPoolExecutor() as pool:  # each is a process of its own, which mostly imports
        return dict(
            zip(BACKENDS, pool.map(lambda name: score_texts(rows(), name, folder), BACKENDS), strict=True)
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_metric_is_there_for_every_line_that_counts(scored, backend):
    columns = scored[backend].columns
    assert set(columns) == {"rouge_l", "bleu", "gleu", "meteor", "f1_score"}
    for column in columns.values():
        for side in column:
            assert np.isnan(side).tolist() == [False] * 5 + [True] * 2
            assert ((side[:5] >= 0) & (side[:5] <= 1)).all()
    assert columns["bleu"].tuned[3] == columns["gleu"].tuned[3] == columns["rouge_l"].tuned[3] == 1.0
    assert columns["f1_score"].tuned[3] == 1.0
    assert columns["f1_score"].base[0] == columns["bleu"].base[0] == 0.0
    assert scored[backend].made_by["package"].startswith(f"{backend} ")


def test_both_packages_agree(scored):
    for metric in EVALUATORS:
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


@pytest.mark.parametrize("fault", ["absent", None, math.nan, "cut"])
def test_a_missing_metric_is_named(tmp_path, fault):
    scores = [dict.fromkeys(EVALUATORS, 0.5) for _ in range(10)]
    if fault == "absent":
        del scores[3]["gleu"]
    elif fault == "cut":
        del scores[3:]
    else:
        scores[3]["gleu"] = fault
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(score) + "\n" for score in scores), encoding="utf-8")
    name = "rouge_l" if fault == "cut" else "gleu"
    with pytest.raises(Phi3flowError, match=f"gave no {name} for line 2"):
        read_scores(rows(), path, AZURE)


def test_a_package_that_is_missing_is_named(tmp_path):
    with pytest.raises(Phi3flowError, match="phi3flow-no-such-backend is not installed"):
        score_texts(rows(), "phi3flow-no-such-backend", tmp_path)


def test_nltk_finds_the_stand_in_and_splits_as_its_documentation_shows(tmp_path, monkeypatch):
    write_stand_in(tmp_path)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert all(nltk.data.find(f"{name}.zip") for name in NEEDED)
    # the examples of nltk.tokenize and of nltk.tokenize.nist
    text = "Good muffins cost $3.88\nin New York.  Please buy me\ntwo of them.\n\nThanks."
    words = ["Good", "muffins", "cost", "$", "3.88", "in", "New", "York", "."]
    assert word_tokenize(text) == [*words, "Please", "buy", "me", "two", "of", "them", ".", "Thanks", "."]
    from nltk.tokenize.nist import NISTTokenizer

    rakuten = "Rakuten, Inc. (楽天株式会社 Rakuten Kabushiki-gaisha) is Japanese"
    tokens = ["Rakuten", ",", "Inc", ".", "(", "楽天株式会社", "Rakuten", "Kabushiki", "-", "gaisha", ")"]
    assert NISTTokenizer().international_tokenize(rakuten)[:11] == tokens
