"""What `phi3flow demo --real` decides before it needs a model; the whole of it is `make demo-real`."""

from evaluation.verdict.gate import load_gate
from phi3flow.app.demo_real import GATE, QUESTIONS, RECIPE
from training.desk.desk import build
from training.recipes.recipe import load_recipe


def test_its_gate_judges_sentences_by_their_words(tmp_path):
    (tmp_path / "gate.toml").write_text(GATE)
    gate = load_gate(tmp_path / "gate.toml")
    assert (gate.primary, gate.margin) == ("token_f1", 0.05)
    assert gate.min_rows <= len(build(0).test)


def test_it_trains_adapters_and_shows_questions_that_the_test_does_not_ask():
    assert load_recipe(RECIPE).lora is not None
    tested = {row["messages"][-2]["content"] for row in build(0).test}
    assert not tested & set(QUESTIONS)
