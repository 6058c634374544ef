"""A batch of answers that a transformers model decodes together, with one key-value cache."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from deploy.scoring.engine import Generation
from deploy.scoring.engines.answer import Answer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Sampler(NamedTuple):
    """How a row samples. Each row has its own `random`, so a seed gives the same answer in any batch."""

    temperature: float
    top_p: float
    random: Random


class Row(Answer):
    """One answer of a batch, with its prompt's token ids and its sampler."""

    def __init__(
        self, generation: Generation, decode: Callable[[Sequence[int]], str], stop_ids: frozenset[int]
    ) -> None:
        super().__init__(generation, decode, stop_ids)
        request = generation.request
        self.prompt = request.prompt_token_ids
        self.sampler = Sampler(request.temperature, request.top_p, Random(request.seed))


class Batch:
    """Left-padded rows. A row leaves when its answer ends, so a short answer never waits for a long one."""

    def __init__(self, model: "PreTrainedModel", rows: Sequence[Row], pad_id: int) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self.rows = list(rows)
        # Without the model's config every layer keeps all keys: a sliding window is then only applied by the
        # mask, and rows of different lengths stay aligned.
        self._cache = DynamicCache()
        width = max(len(row.prompt) for row in rows)
        padding = [width - len(row.prompt) for row in rows]
        padded = [[pad_id] * pad + list(row.prompt) for pad, row in zip(padding, rows, strict=True)]
        self._inputs = torch.tensor(padded, device=model.device)
        room = width + max(row.generation.request.max_tokens for row in rows)
        columns = torch.arange(room, device=model.device)
        self._mask = (columns >= torch.tensor(padding, device=model.device).unsqueeze(1)).long()
        self._positions = (self._mask[:, :width].cumsum(dim=-1) - 1).clamp(min=0)
        self._width = width

    def step(self) -> None:
        """One token for each row; the first step reads the prompts."""
        tokens = next_tokens(self._forward(), [row.sampler for row in self.rows])
        kept = [i for i, (row, token) in enumerate(zip(self.rows, tokens, strict=True)) if row.accept(token)]
        if len(kept) < len(self.rows):
            self._keep(kept)
        if kept:
            self._inputs = self._inputs.new_tensor([[tokens[i]] for i in kept])
            self._positions = self._positions[:, -1:] + 1
            self._width += 1

    def _forward(self) -> "torch.Tensor":
        """Logits of the next token, of shape (rows, vocabulary)."""
        output = self._model(
            input_ids=self._inputs,
            attention_mask=self._mask[:, : self._width],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _keep(self, kept: list[int]) -> None:
        self.rows = [self.rows[i] for i in kept]
        if kept:
            indices = self._inputs.new_tensor(kept)
            self._cache.batch_select_indices(indices)
            self._mask, self._positions = self._mask[indices], self._positions[indices]


def next_tokens(logits: "torch.Tensor", samplers: Sequence[Sampler]) -> list[int]:
    """One token id a row, for `logits` of shape (rows, vocabulary); temperature 0 takes the most likely."""
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
