import ast
import sys
from pathlib import Path

import pytest

from evaluation import answer_metrics
from evaluation.answer_metrics import declines, score_answer


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("Paris is in France.", "Paris is in France.", 1, 1),
        ("  Paris is\n in  France. ", "Paris is in France.", 1, 1),
        ("Cafe\u0301", "Caf\u00e9", 1, 1),  # the same letters, composed differently
        ("paris", "Paris", 0, 1),
        ("the cat sat on the mat", "a cat sat", 0, 2 * 2 / (4 + 2)),
        ("yes yes yes", "yes", 0, 2 * 1 / (3 + 1)),
        ("", "Paris", 0, 0),
        ("", "", 1, 1),
        ("!", "?", 0, 1),
    ],
)
def test_exact_match_and_token_f1(answer, reference, exact, f1):
    scores = score_answer(answer, reference)
    assert (scores["exact_match"], scores["token_f1"]) == (exact, pytest.approx(f1))
    assert scores["answer_chars"] == len(answer)


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, I do not know that.",
        "I don\u2019t know.",
        "I'm sorry, but I cannot answer that question.",
        "I am not sure.",
        "Unfortunately, I do not have that information.",
        "As an AI language model, I don't have access to that information.",
        "I have no information about this.",
        "I'm unable to help with that.",
        "Cannot answer.",
    ],
)
def test_declining_is_recognised(text):
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris, though I am not sure.",
        "Socrates said: I know that I do not know.",
        "I know that it is Paris.",
        "Sorry to say, it burned down in 1932.",
        "I do not have a favourite colour.",
        "",
    ],
)
def test_an_answer_is_not_taken_for_declining(text):
    assert not declines(text)


def test_flows_can_include_the_file_because_it_needs_nothing_else():
    tree = ast.parse(Path(answer_metrics.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
