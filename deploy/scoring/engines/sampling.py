"""The next token of each answer, chosen on the device that holds the logits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engines.answer import Answer
from deploy.scoring.guide import Guide

if TYPE_CHECKING:
    import torch


def next_tokens(logits: "torch.Tensor", answers: Sequence[Answer]) -> "torch.Tensor":
    """One token id an answer, for `logits` of shape (answers, vocabulary); nothing waits for the device.

    Temperature 0 takes the most likely. An answer with a guide gets a token that its schema allows.
    """
    logits = _guided(logits, [answer.guide for answer in answers])
    tokens = logits.argmax(dim=-1)
    sampled = [at for at, answer in enumerate(answers) if answer.request.temperature > 0]
    if sampled:
        rows = sent(sampled, logits.device)
        tokens.index_copy_(0, rows, _draw(logits.index_select(0, rows), [answers[at] for at in sampled]))
    return tokens


def _guided(logits: "torch.Tensor", guides: Sequence[Guide | None]) -> "torch.Tensor":
    """The logits with minus infinity for tokens that a row's guide does not allow."""
    import numpy as np
    import torch

    allowed = {row: guide.allowed() for row, guide in enumerate(guides) if guide}
    if not allowed:
        return logits
    rows = sent(list(allowed), logits.device)
    forbidden = ~torch.from_numpy(np.stack(list(allowed.values()))).to(logits.device)
    return logits.index_copy(0, rows, logits[rows].masked_fill(forbidden, -torch.inf))


def sent(values: Sequence[int] | Sequence[float], device: "torch.device") -> "torch.Tensor":
    """`values` (int64 or fp64) on the device; a copy from pinned memory does not wait for earlier work."""
    import torch

    made = torch.tensor(values, dtype=torch.int64 if isinstance(values[0], int) else torch.float64)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made


def _draw(logits: "torch.Tensor", answers: Sequence[Answer]) -> "torch.Tensor":
    """Nucleus sampling by inverting the cumulative distribution: one uniform number for each row.

    Nucleus: the fewest most likely tokens whose probabilities reach top_p (Holtzman et al. 2020).
    """
    import torch

    requests = [answer.request for answer in answers]
    temperature, top_p, uniform = (
        sent([float(value) for value in column], logits.device).unsqueeze(1)
        for column in (
            [request.temperature for request in requests],
            [request.top_p for request in requests],
            [answer.random.random() for answer in answers],
        )
    )
    shifted = logits.double() - logits.amax(dim=-1, keepdim=True)  # no overflow at the smallest temperature
    probabilities, order = torch.softmax(shifted / temperature, dim=-1).sort(
        dim=-1, descending=True, stable=True
    )
    cumulative = probabilities.cumsum(dim=-1)
    nucleus = cumulative - probabilities <= top_p
    total = (probabilities * nucleus).sum(dim=-1, keepdim=True)
    drawn = torch.searchsorted(cumulative, uniform * total, right=True)
    last = nucleus.sum(dim=-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(drawn, last)).squeeze(1)
