from dataclasses import replace

import pytest

from training.recipes.recipe import load_recipe
from training.recipes.training_arguments import emulation_warning, has_bf16, uses_bf16

RECIPE = load_recipe("tiny-cpu")


def test_automatic_precision_follows_the_machine():
    assert uses_bf16("auto") == has_bf16()
    assert uses_bf16("bf16")
    assert not uses_bf16("fp32")


@pytest.mark.parametrize("asked", [{"precision": "bf16"}, {"weights": "bf16"}])
def test_emulated_bf16_is_a_warning_with_its_repair(asked):
    warning = emulation_warning(replace(RECIPE, **asked), native=False)
    assert warning.endswith('set precision = "fp32" and weights = "fp32" in the recipe')
    assert emulation_warning(replace(RECIPE, **asked), native=True) is None


def test_a_recipe_without_bf16_gets_no_warning():
    assert emulation_warning(RECIPE, native=False) is None
    assert emulation_warning(replace(RECIPE, precision="fp32"), native=False) is None
