"""Adapters stay beside the merged model, in PEFT's format, and give the same weights when merged again."""

from dataclasses import replace

import counting
import pytest
from counting import chat
from peft import PeftModel

from phi3flow.core.jsonl import write_jsonl
from training.finetune import finetune
from training.models.loading import load_model
from training.recipes.recipe import Lora

RECIPE = replace(counting.RECIPE, scratch=None, precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", [chat(i) for i in range(40)])
    write_jsonl(folder / "val.jsonl", [chat(i) for i in range(40, 46)])
    return folder


@pytest.fixture(scope="module")
def base(data, tmp_path_factory):
    return finetune(data, counting.RECIPE, tmp_path_factory.mktemp("run") / "base").folder


@pytest.mark.parametrize(
    "lora",
    [Lora(rank=4), Lora(rank=4, rank_stabilised=True), Lora(rank=4, dora=True)],
    ids=["plain", "rank-stabilised", "dora"],
)
def test_adapters_merged_again_are_the_saved_model(data, base, tmp_path, lora):
    tuned = finetune(data, replace(RECIPE, lora=lora), tmp_path / "tuned", model=str(base)).folder
    adapted = PeftModel.from_pretrained(load_model(str(base)), tuned / "adapter")
    config = adapted.peft_config["default"]
    assert (config.r, config.use_rslora, config.use_dora) == (4, lora.rank_stabilised, lora.dora)
    again, saved = adapted.merge_and_unload().state_dict(), load_model(str(tuned)).state_dict()
    assert again.keys() == saved.keys()
    assert all(again[name].allclose(saved[name], atol=1e-6) for name in saved)
    start = load_model(str(base)).state_dict()
    assert not saved["model.layers.0.mlp.down_proj.weight"].equal(
        start["model.layers.0.mlp.down_proj.weight"]
    )


def test_a_run_without_adapters_keeps_none(base):
    assert not (base / "adapter").exists()
