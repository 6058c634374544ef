"""How likely a text is to a transformers model, token by token."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256  # tokens whose logits exist at once: 33 MB with Phi-3's vocabulary


class Likelihood(NamedTuple):
    """Natural logarithm; `rank` 1 is the likeliest token, and equally likely ones share the better rank."""

    logprob: float
    rank: int


def likelihoods_of(model: "PreTrainedModel", ids: Sequence[int]) -> Iterator[Likelihood]:
    """Of every token but the first, given those before it."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    tokens = torch.tensor([ids], device=model.device)
    for start in range(0, len(ids) - 1, CHUNK):
        end = min(start + CHUNK, len(ids) - 1)
        output = model(input_ids=tokens[:, start:end], past_key_values=cache, use_cache=True)
        logprobs = output.logits[0].float().log_softmax(dim=-1)
        chosen = logprobs.gather(1, tokens[0, start + 1 : end + 1, None])
        ranks = (logprobs > chosen).sum(dim=-1) + 1
        yield from map(Likelihood, chosen.squeeze(1).tolist(), ranks.tolist())
