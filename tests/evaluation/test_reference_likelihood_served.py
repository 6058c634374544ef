"""The log-likelihood that evaluation reads off our endpoint is the loss that training computes."""

import pytest
import torch
from tiny import CHAT, KEY, listening, lively_model, new_tokenizer

from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.service import Service
from evaluation.metrics.likelihood import score_reference
from phi3flow.chats.chat_template import encode_example
from phi3flow.phi3_contract import Endpoint, Unsupported

PROMPT = [
    {"role": "system", "content": "one two"},
    {"role": "user", "content": "Who founded it?"},
    {"role": "assistant", "content": "three four"},
    {"role": "user", "content": "The quick <|end|> fox?"},
]
REFERENCE = "The lazy dog, 東京."


@pytest.fixture(scope="module")
def served():
    tokenizer = new_tokenizer()
    model = lively_model(tokenizer)
    service = Service("tiny")
    service.ready(TransformersEngine(model, tokenizer))
    with listening(service) as url:
        yield url, model, tokenizer


def test_it_is_what_training_computes(served):
    url, model, tokenizer = served
    tokens = score_reference(Endpoint(url + CHAT, KEY, "openai"), PROMPT, REFERENCE)
    example = encode_example(tokenizer, [*PROMPT, {"role": "assistant", "content": REFERENCE}])
    last = len(example.assistant_mask) - example.assistant_mask[::-1].index(0)
    assert [token.id for token in tokens] == example.input_ids[last:]
    assert tokens[-1].text == "<|end|>"
    ids = torch.tensor([example.input_ids])
    labels = torch.full_like(ids, -100)
    labels[0, last:] = ids[0, last:]
    with torch.no_grad():
        loss = model(ids, labels=labels).loss.item()
    assert -sum(token.logprob for token in tokens) / len(tokens) == pytest.approx(loss, abs=1e-4)


def test_the_scoring_contracts_cannot_tell(served):
    with pytest.raises(Unsupported, match="contract B"):
        score_reference(Endpoint(f"{served[0]}/score", KEY), PROMPT, REFERENCE)
