"""Every shipped recipe parses; all problems of a broken one are reported at once."""

import shlex
from dataclasses import replace
from importlib.resources import files

import pytest
from command_line import parse

from phi3flow.core.errors import BadInput
from training.recipes.recipe import load_recipe, recipe_names
from training.toy.corpus import BASE_RECIPE


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses_and_opens_with_its_command(name):
    recipe = load_recipe(name)
    assert (recipe.steps or recipe.epochs) > 0
    first = (files("training.recipes") / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    command = first.removeprefix("# ").removeprefix("torchrun --nproc-per-node 4 --no-python ")
    program, verb, *arguments = shlex.split(command)
    assert program == "phi3flow"
    asked = parse([verb, *arguments])
    assert (verb, name) == ("toy-base", BASE_RECIPE) or asked["recipe"] == name


def test_all_problems_are_reported_at_once_with_the_nearest_match(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('stps = 5\nbatch_size = "many"\nmodel = "x"\n[scratch]\nvocab_size = 10\nheds = 2\n')
    with pytest.raises(BadInput) as caught:
        load_recipe(str(recipe))
    problems = str(caught.value).splitlines()
    # Unknown 2, wrong type 1, missing: rate and 4 of scratch, steps or epochs; model contradicts scratch.
    assert len(problems) == 10, problems
    assert any("stps" in line and "did you mean 'steps'" in line for line in problems)
    assert any("scratch.heds" in line and "did you mean 'heads'" in line for line in problems)
    assert any("batch_size: must be a valid integer, not 'many'" in line for line in problems)
    assert any("model, scratch: a run starts from one of them" in line for line in problems)


def test_contradictions_are_found(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'model = "x"\nsteps = 0\nbatch_size = 1\nlearning_rate = nan\nscheduler = "cosin"\n'
        "max_length = 4096\n"
        "[scratch]\nvocab_size = 300\nhidden_size = 10\nintermediate_size = 8\nlayers = -1\nheads = 3\n"
    )
    with pytest.raises(BadInput) as caught:
        load_recipe(str(recipe))
    text = str(caught.value)
    for expected in (
        "steps: must be greater than 0",
        "learning_rate: must be a finite number",
        "did you mean 'cosine'",
        "model, scratch: a run starts from one of them",
        "max_length, scratch.context: no chat",
        "scratch.layers: must be greater than 0",
        "scratch.heads, scratch.hidden_size: 3 does not divide 10",
    ):
        assert expected in text


def test_an_unknown_recipe_names_those_that_exist():
    with pytest.raises(BadInput) as caught:
        load_recipe("tiny-cp")
    assert "did you mean 'tiny-cpu'" in caught.value.hint


def test_auto_is_a_choice_beside_true_and_false(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'steps = 1\nbatch_size = 1\nlearning_rate = 1e-3\ncompile = true\ngradient_checkpointing = "no"\n'
    )
    with pytest.raises(BadInput, match="gradient_checkpointing: unknown 'no'") as caught:
        load_recipe(str(recipe))
    assert "compile" not in str(caught.value)
    recipe.write_text("steps = 1\nbatch_size = 1\nlearning_rate = 1e-3\ncompile = true\n")
    assert (load_recipe(str(recipe)).compile, load_recipe(str(recipe)).gradient_checkpointing) == (
        True,
        "auto",
    )


def test_what_preferences_cannot_be_learned_with_is_named(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "steps = 1\nbatch_size = 1\nlearning_rate = 1e-3\npacking = true\ncompile = true\n"
        'long_chats = "window"\n'
    )
    assert load_recipe(str(recipe)).long_chats_rule == "window"
    with pytest.raises(BadInput) as caught:
        load_recipe(str(recipe), "kto")
    for expected in (
        "method, lora: kto needs [lora]",
        "method, packing: kto compares whole answers",
        "method, compile: kto runs the layers as they are written",
        "method, long_chats: an answer to compare cannot be cut",
        "method, batch_size: kto measures an answer by the others of its batch",
    ):
        assert expected in str(caught.value)


def test_the_method_of_a_recipe_can_be_replaced():
    assert (load_recipe("dpo-tiny").method, load_recipe("dpo-tiny", "kto").method) == ("dpo", "kto")
    assert load_recipe("dpo-tiny").long_chats_rule == "refuse"


def test_steps_are_counted_as_the_trainer_counts_them():
    """A pass ends with the batches that are left, however few; both are rounded up."""
    recipe = replace(load_recipe("dpo-tiny"), epochs=1.5, batch_size=4, gradient_accumulation=2)
    assert [recipe.optimiser_steps(rows) for rows in (1, 8, 9, 16)] == [2, 2, 3, 3]
    assert replace(recipe, epochs=None, steps=5).optimiser_steps(800) == 5
