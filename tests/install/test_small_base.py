"""The real package from the real index: the model that `phi3flow base --pretrained` makes of it."""

import pytest
import torch
from tokenizers import Tokenizer

from phi3flow.chats.chat_template import encode_example
from training.models.probes import generate
from training.pretrained.gguf_file import read_gguf
from training.pretrained.llama_as_phi3 import phi3_from
from training.pretrained.package import packaged_model

pytestmark = pytest.mark.install
IM_START, IM_END, WORDS = 1, 2, 49_152
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France in 2026?"},
    {"role": "assistant", "content": "Paris."},
]


@pytest.fixture(scope="module")
def read():
    with packaged_model() as packaged:
        assert "Apache License" in packaged.licence
        return read_gguf(packaged.file)


@pytest.fixture(scope="module")
def phi3(read):
    return phi3_from(read.model, stops=[0, IM_END], pad=0)


def test_the_logits_are_equal_to_the_last_bit(read, phi3):
    ids = torch.tensor([encode_example(read.tokenizer, CHAT).input_ids])
    with torch.inference_mode():
        assert torch.equal(read.model.eval()(input_ids=ids).logits, phi3(input_ids=ids).logits)


def test_the_tokenizer_has_the_published_words(read):
    assert len(read.tokenizer) == WORDS
    assert isinstance(read.tokenizer.backend_tokenizer, Tokenizer)
    ids, mask = encode_example(read.tokenizer, CHAT)
    assert ids.count(IM_START) == ids.count(IM_END) == 3
    learned = [read.tokenizer.decode([token]) for token, counts in zip(ids, mask, strict=True) if counts]
    assert learned == ["Paris", ".", "<|im_end|>"]
    assert read.tokenizer.convert_ids_to_tokens(read.tokenizer.encode("2026")) == list("2026")


def test_it_speaks_english(read, phi3):
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = generate(phi3, read.tokenizer, question, max_new_tokens=32)
    assert "Paris" in answer.text and answer.finish_reason == "stop"
