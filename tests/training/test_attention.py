"""Packed chats attended by their lengths: no chat sees another, and values and gradients are sdpa's."""

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, Phi3Config, Phi3ForCausalLM

from training.data.encode import IGNORED
from training.loop.attention import VARLEN, attend_by_lengths
from training.loop.trainer import LineCollator

LENGTHS = [5, 1, 17, 9]
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 200, "pad_token_id": 0}  # fmt: skip


def model(**changes):
    torch.manual_seed(0)
    return Phi3ForCausalLM(Phi3Config(**SHAPE | changes)).eval()


def by_lengths(made):
    attend_by_lengths(made)
    return made


def batch(longest=None):
    """Two packed rows, as the trainer gets them."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for lengths in (LENGTHS[:2], LENGTHS[2:]):
        ids = torch.randint(1, 200, (sum(lengths),), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": ids, "seq_lengths": lengths})
    return LineCollator(0, padding_free=True, longest=longest)(rows)


def loss_of(made, inputs):
    labels = inputs["labels"][0, 1:]
    logits = made(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits[0, :-1]
    return cross_entropy(logits, labels, ignore_index=IGNORED)


def gradients(made, inputs):
    made.zero_grad()
    loss = loss_of(made, inputs)
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in made.parameters()]


@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2}, {"sliding_window": 4}], ids=["full", "grouped", "window"]
)
def test_values_and_gradients_equal_those_of_sdpa_under_a_mask(changes):
    plain, packed = model(**changes), by_lengths(model(**changes))
    masked = {
        name: value for name, value in batch().items() if name in {"input_ids", "position_ids", "labels"}
    }
    expected, wanted = gradients(plain, masked)
    loss, found = gradients(packed, batch(longest=64))
    assert loss == pytest.approx(expected, abs=1e-6)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, wanted, strict=True))


def test_a_packed_chat_has_the_same_logits_as_alone_and_no_gradient_from_another():
    made, inputs = by_lengths(model()), batch(longest=64)
    inputs.pop("labels")
    embedded = made.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
    together = made(inputs_embeds=embedded, **inputs, use_cache=False).logits[0]
    start = 0
    for length in LENGTHS:
        part = slice(start, start + length)
        alone = made(inputs_embeds=embedded[:, part], use_cache=False).logits[0]
        assert torch.allclose(together[part], alone, atol=1e-5)
        (reach,) = torch.autograd.grad(together[part].sum(), embedded, retain_graph=True)
        others = torch.ones(sum(LENGTHS), dtype=torch.bool)
        others[part] = False
        assert reach[0][others].abs().max() == 0
        assert reach[0, part].abs().max() > 0
        start += length


def test_rows_without_lengths_are_answered_as_by_sdpa():
    """Generation, and rows with padding."""
    plain, packed = model(), by_lengths(model())
    ids = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]])
    mask = (ids != 0).long()
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert plain.generate(ids, **options).equal(packed.generate(ids, **options))


def test_queries_in_fp32_take_the_type_of_the_values():
    """So rotary leaves them where weights are fp32, and autocast does not know the kernel."""
    by_lengths(model())
    query, key, value = torch.randn(3, 1, 2, 6, 8).unbind()
    starts = torch.tensor([0, 6], dtype=torch.int32)
    attend = AttentionInterface()[VARLEN]
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 1, True
    found, _ = attend(module, query, key, value.bfloat16(), None, cu_seq_lens_q=starts, max_length_q=6)
    expected = scaled_dot_product_attention(*(x.bfloat16() for x in (query, key, value)), is_causal=True)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected.transpose(1, 2).float(), atol=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a CUDA GPU")
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2}, {"sliding_window": 4}], ids=["full", "grouped", "window"]
)
def test_the_kernel_gives_what_the_mask_gives(changes):
    masked, kernel = by_lengths(model(**changes).cuda()), by_lengths(model(**changes).cuda().bfloat16())
    inputs = {name: v.cuda() if torch.is_tensor(v) else v for name, v in batch(longest=64).items()}
    expected, wanted = gradients(masked, inputs)
    loss, found = gradients(kernel, inputs)
    assert loss == pytest.approx(expected, rel=2e-2)
    for one, other in zip(found, wanted, strict=True):
        assert (one.float() - other).norm() < 5e-2 * other.norm()
