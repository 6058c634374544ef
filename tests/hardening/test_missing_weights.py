"""Issue: tensors that a model's files lack were served, trained and exported as random numbers.

So were tensors of NaN, of truth values, and a head that config.json ties to the embeddings.
"""

import json
from dataclasses import replace

import pytest
import torch
from counting import RECIPE, chat
from safetensors.torch import load_file, save_file
from tiny import lively_model, new_tokenizer, saved
from tiny_llama import gguf_file, llama

from deploy.export.openvino import export_openvino
from deploy.scoring.load import load
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from training.finetune import finetune
from training.models.loading import load_model
from training.pretrained.gguf_file import read_gguf

NORM = "model.layers.0.input_layernorm.weight"
FAULTS = {
    rf"1 missing: {NORM}": {NORM: None},
    r"1 unexpected: more\\nwords": {"more\nwords": torch.ones(3)},
    rf"1 of another shape: {NORM} \(3,\) instead of \(32,\)": {NORM: torch.ones(3)},
    rf"infinite or undefined numbers: {NORM}": {NORM: torch.tensor([1.0] * 31 + [float("nan")])},
    rf"undefined numbers: {NORM}$": {NORM: torch.full((32,), float("inf"))},
    rf"no floating-point numbers: {NORM}": {NORM: torch.ones(32, dtype=torch.bool)},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    tokenizer = new_tokenizer()
    return saved(lively_model(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def changed(whole):
    """Change the model's tensors, None to remove one; the model is whole again after the test."""
    file = whole / "model.safetensors"
    before = load_file(file)

    def change(tensors):
        kept = {name: each for name, each in (before | tensors).items() if each is not None}
        save_file(kept, file, metadata={"format": "pt"})
        return whole

    yield change
    save_file(before, file, metadata={"format": "pt"})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_that_does_not_belong_is_named_and_nothing_is_served(changed, fault):
    with pytest.raises(BadInput, match=fault):
        load(changed(FAULTS[fault]), lambda: None, "transformers")


def test_a_head_of_its_own_where_it_should_be_tied_is_named(changed):
    head = {"lm_head.weight": torch.ones(len(new_tokenizer()), 32)}
    folder = changed(head)
    config = folder / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"tie_word_embeddings": True}))
    with pytest.raises(BadInput, match=r"lm_head\.weight is not the embeddings'"):
        load(folder, lambda: None, "transformers")
    config.write_text(before)


def test_a_whole_model_is_served(whole):
    load(whole, lambda: None, "transformers").close()


def test_a_model_without_some_weights_is_neither_trained_nor_exported(changed, tmp_path):
    folder, data = changed({NORM: None}), tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        write_jsonl(data / f"{split}.jsonl", [chat(i) for i in range(4)])
    with pytest.raises(BadInput, match=f"missing: {NORM}"):
        finetune(data, replace(RECIPE, scratch=None), tmp_path / "tuned", model=str(folder))
    with pytest.raises(BadInput, match=f"missing: {NORM}"):
        export_openvino(folder, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_gguf_file_without_some_weights_is_refused(tmp_path):
    model = llama()
    del model.model.layers[1].input_layernorm.weight
    with pytest.raises(BadInput, match=r"1 missing: model\.layers\.1\.input_layernorm\.weight"):
        read_gguf(gguf_file(tmp_path / "model.gguf", model))


def test_both_halves_of_a_tied_weight_are_asked_for(changed):
    with pytest.raises(BadInput, match=r"missing: lm_head\.weight, model\.embed_tokens\.weight"):
        load_model(str(changed({"model.embed_tokens.weight": None})))
