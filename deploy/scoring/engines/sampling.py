"""One token for each row of a batch."""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Sampler(NamedTuple):
    """How a row samples. A generator of its own keeps a seed reproducible whatever else is in the batch."""

    temperature: float
    top_p: float
    random: Random


def next_tokens(logits: "torch.Tensor", samplers: Sequence[Sampler]) -> list[int]:
    """Token ids for `logits` of shape (rows, vocabulary); temperature 0 takes the most likely token."""
    tokens = logits.argmax(dim=-1).tolist()
    sampled = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0]
    if sampled:
        drawn = _draw(logits[sampled], [samplers[row] for row in sampled])
        for row, token in zip(sampled, drawn, strict=True):
            tokens[row] = token
    return list(tokens)


def _draw(logits: "torch.Tensor", samplers: Sequence[Sampler]) -> list[int]:
    """Nucleus sampling by inverting the cumulative distribution: one uniform number for each row.

    Nucleus: the fewest most likely tokens whose probabilities reach top_p (Holtzman et al. 2020).
    """
    import torch

    columns = zip(*((s.temperature, s.top_p, s.random.random()) for s in samplers), strict=True)
    temperature, top_p, uniform = (
        torch.tensor(column, device=logits.device, dtype=torch.float64).unsqueeze(1) for column in columns
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
    tokens: list[int] = order.gather(1, torch.minimum(drawn, last)).squeeze(1).tolist()
    return tokens
