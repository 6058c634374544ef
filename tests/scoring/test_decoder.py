"""The decoder alone: answers that join and leave at any step equal `model.generate`'s, token by token."""

from types import SimpleNamespace

import pytest
import torch
from tiny import lively_model, new_tokenizer
from transformers import Phi3Config, Phi3ForCausalLM

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.engines.cuda_graphs import Size, fused, sizes
from deploy.scoring.engines.decoder import Decoder, Row
from deploy.scoring.engines.fixed_cache import FIRST_SPAN, FixedCache

VOCABULARY = 300
JOINS = (0, 0, 3, 4, 4, 40, 41, 90)  # the step before which each row joins
PROMPTS = (5, 130, 1, 64, 300, 9, 2, 40)
ANSWERS = (150, 30, 90, 2, 7, 1, 260, 33)


def model_of(**changes):
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
    }
    model = Phi3ForCausalLM(Phi3Config(**(shape | changes))).eval()
    for name, weights in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weights, std=0.3)
    return model


def rows_of(prompts, answers):
    draw = torch.Generator().manual_seed(1)
    return [
        Row(
            SimpleNamespace(
                guide=None,
                request=GenerationRequest(
                    tuple(torch.randint(1, VOCABULARY, (length,), generator=draw).tolist()), tokens
                ),
            )
        )
        for length, tokens in zip(prompts, answers, strict=True)
    ]


def decoded(decoder, rows, joins):
    """Each row's tokens; row `i` joins before step `joins[i]`."""
    made = {id(row): [] for row in rows}
    step = 0
    while step <= max(joins) or decoder.rows:
        joining = [row for row, when in zip(rows, joins, strict=True) if when == step]
        if joining:
            assert decoder.fits([*decoder.rows, *joining])
            decoder.join(joining)
        if decoder.rows:
            begun = decoder.step()
            for row, token in zip(begun.rows, begun.wait(), strict=True):
                made[id(row)].append(token)
        step += 1
    return [made[id(row)] for row in rows]


def generated(model, row):
    ids = torch.tensor([row.prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=row.answer.request.max_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(row.prompt) :].tolist()


def decoder_of(model, tokens=8 * 512, rows=8):
    return Decoder(model, FixedCache(model.config, tokens, model.dtype, model.device), rows)


LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.5] * 4,
        "long_factor": [9.0] * 4,
    },
    "original_max_position_embeddings": 512,
    "max_position_embeddings": 2048,
}


@pytest.mark.parametrize(
    "changes",
    [{}, {"sliding_window": 50}, {"num_key_value_heads": 2}, LONGROPE],
    ids=["plain", "window", "grouped heads", "longrope"],
)
@torch.inference_mode()
def test_rows_that_join_at_different_steps_equal_generate_token_by_token(changes):
    model = model_of(**changes)
    rows = rows_of(PROMPTS, ANSWERS)
    expected = [generated(model, row) for row in rows]
    assert len({tuple(tokens[:1]) for tokens in expected}) > 3
    decoder = decoder_of(model)
    assert decoded(decoder, rows, JOINS) == expected
    again = rows_of(PROMPTS, ANSWERS)  # in what the first ones left behind
    assert decoded(decoder, again, JOINS[::-1]) == expected


@torch.inference_mode()
def test_a_step_begun_before_the_last_ones_tokens_are_read_disturbs_no_other_row():
    model = model_of()
    rows = rows_of((12, 40, 7), (30, 30, 30))
    expected = [generated(model, row) for row in rows]
    decoder = decoder_of(model)
    decoder.join(rows)
    made = {id(row): [] for row in rows}
    begun = decoder.step()
    while begun:
        following = decoder.step() if decoder.rows else None
        for row, token in zip(begun.rows, begun.wait(), strict=True):
            made[id(row)].append(token)
        if len(made[id(rows[0])]) == 4:  # ends now, as with a stop token; its fifth is being computed
            decoder.leave(rows[0])
        begun = following
    assert made[id(rows[0])] == expected[0][:5]
    assert [made[id(row)] for row in rows[1:]] == expected[1:]


def test_rows_fit_up_to_the_cache_and_the_most_rows():
    decoder = decoder_of(model_of(), tokens=4 * FIRST_SPAN, rows=3)
    short, long = rows_of((8, 100), (8, 100))
    assert decoder.fits([short] * 3)
    assert not decoder.fits([short] * 4)
    assert decoder.fits([short, long])
    assert not decoder.fits([short, short, long])


def test_there_is_a_graph_for_every_number_of_rows_that_fits():
    tokens, longest = 20 * FIRST_SPAN, 4 * FIRST_SPAN
    found = sizes(lambda span: min(16, tokens // span), longest)
    assert found[0] == Size(16, FIRST_SPAN)
    for span, most in ((FIRST_SPAN, 16), (2 * FIRST_SPAN, 10), (4 * FIRST_SPAN, 5)):
        assert max(size.rows for size in found if size.span == span) == most
        assert min(size.rows for size in found if size.span == span) == 1
    assert len(found) == len(set(found)) == 5 + 5 + 4


@pytest.mark.slow
@torch.inference_mode()
def test_fused_parts_compute_what_the_model_does_and_are_compiled_once_for_all_layers():
    from torch._dynamo.utils import counters

    model = lively_model(new_tokenizer(), layers=12)
    decoder = decoder_of(model, tokens=12 * FIRST_SPAN, rows=12)
    decoder.join(rows_of(range(3, 15), [3] * 12))
    expected = decoder.compute(12, FIRST_SPAN)
    counters.clear()
    with fused(model):
        for rows in range(12, 0, -1):
            compiled = decoder.compute(rows, FIRST_SPAN)
            assert torch.allclose(compiled, expected[:rows], atol=1e-3)
    # a norm, an MLP and the rotary embedding, for several rows and for one
    assert counters["stats"]["unique_graphs"] == 6
    assert torch.equal(decoder.compute(12, FIRST_SPAN), expected)
    assert counters["stats"]["unique_graphs"] == 6
