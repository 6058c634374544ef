"""A batch of answers that a transformers model decodes together, with one key-value cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engines.answer import Answer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Batch:
    """Left-padded rows. A row leaves when its answer ends, so a short answer never waits for a long one."""

    def __init__(self, model: "PreTrainedModel", rows: Sequence[Answer], pad_id: int) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self.rows = list(rows)
        # Without the model's config every layer keeps all keys: a sliding window is then only applied by the
        # mask, and rows of different lengths stay aligned.
        self._cache = DynamicCache()
        prompts = [row.request.prompt_token_ids for row in rows]
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        padded = [[pad_id] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        self._inputs = torch.tensor(padded, device=model.device)
        room = width + max(row.request.max_tokens for row in rows)
        columns = torch.arange(room, device=model.device)
        self._mask = (columns >= torch.tensor(padding, device=model.device).unsqueeze(1)).long()
        self._positions = (self._mask[:, :width].cumsum(dim=-1) - 1).clamp(min=0)
        self._width = width

    def step(self) -> None:
        """One token for each row; the first step reads the prompts."""
        tokens = next_tokens(self._forward(), self.rows)
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


def next_tokens(logits: "torch.Tensor", rows: Sequence[Answer]) -> list[int]:
    """One token id a row, for `logits` of shape (rows, vocabulary); temperature 0 takes the most likely."""
    tokens = logits.argmax(dim=-1).tolist()
    sampled = [at for at, row in enumerate(rows) if row.request.temperature > 0]
    if sampled:
        drawn = _draw(logits[sampled], [rows[at] for at in sampled])
        for at, token in zip(sampled, drawn, strict=True):
            tokens[at] = token
    return list(tokens)


def _draw(logits: "torch.Tensor", rows: Sequence[Answer]) -> list[int]:
    """Nucleus sampling by inverting the cumulative distribution: one uniform number for each row.

    Nucleus: the fewest most likely tokens whose probabilities reach top_p (Holtzman et al. 2020).
    """
    import torch

    columns = zip(*((r.request.temperature, r.request.top_p, r.random.random()) for r in rows), strict=True)
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
