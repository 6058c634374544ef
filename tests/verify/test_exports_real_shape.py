"""Phi-3.5's published configuration, tokenizer and longrope factors, cut to two random layers, exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, Phi3ForCausalLM

from deploy.export.export import HeldOut, export
from deploy.export.gguf.exporter import Gguf
from deploy.export.onnx import Onnx
from deploy.export.recorded import LONG, LONG_TOKENS, PROBES
from phi3flow.core.files import write_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
PUBLISHED = DATA / "configs" / "phi3.5-mini.json"
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Removed at the end: two layers and the vocabulary take a gigabyte and a half."""
    made = tmp_path_factory.mktemp("phi3.5") / "model"
    shutil.copytree(DATA / "phi3_tokenizer", made)
    published = json.loads(PUBLISHED.read_text()) | {"num_hidden_layers": LAYERS}
    write_json(made / "config.json", published)
    config = AutoConfig.from_pretrained(made)
    torch.manual_seed(0)
    model = Phi3ForCausalLM(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name:
                weights.normal_(std=0.03)
        model.lm_head.weight.mul_(8)  # one token far ahead: rounding may not choose between two
    model.save_pretrained(made)
    yield made
    shutil.rmtree(made.parent)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """No random model answers these, so 0 is enough: prompt, tokens and runtime are what is judged."""
    file = tmp_path_factory.mktemp("rows") / "test.jsonl"
    asked = [("Who founded Microsoft?", "Bill Gates."), ("Jump twice.", "JUMP JUMP")]
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in asked]
    write_jsonl(file, [{"messages": messages} for messages in turns])
    return file


def results(exported):
    return {check.name: check.result for check in exported.checks}


def test_gguf_has_training_tokens_and_both_sets_of_factors(folder, rows, tmp_path):
    from gguf import GGUFReader

    exported = export(folder, tmp_path / "out", Gguf(), weights="f16", held_out=HeldOut(rows, 0.0))
    assert (results(exported)["template"], results(exported)["sampling"]) == ("pass", "pass")
    [long] = [row for row in read_jsonl(exported.folder / PROBES) if row["id"] == LONG]
    assert LONG_TOKENS - 100 < len(long["prompt_token_ids"]) <= LONG_TOKENS
    tensors = {tensor.name: tensor for tensor in GGUFReader(exported.folder / "model-f16.gguf").tensors}
    rope = json.loads(PUBLISHED.read_text())["rope_scaling"]
    for name, field in (("rope_factors_long", "long_factor"), ("rope_factors_short", "short_factor")):
        assert tensors[f"{name}.weight"].data.tolist() == pytest.approx(rope[field])


def test_onnx_in_fp32_gives_every_answer_the_long_one_too(folder, tmp_path):
    exported = export(folder, tmp_path / "out", Onnx())
    assert (results(exported)["template"], results(exported)["text"]) == ("pass", "pass")
