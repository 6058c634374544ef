"""Some answers decoded together by a transformers model, sharing one key-value cache."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from deploy.scoring.engine import Generation
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.sampling import Sampler, next_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Row(Answer):
    """One answer of a batch, with the prompt it begins with and the sampler of its tokens."""

    def __init__(
        self, generation: Generation, decode: Callable[[Sequence[int]], str], stop_ids: frozenset[int]
    ) -> None:
        super().__init__(generation, decode, stop_ids)
        request = generation.request
        self.prompt = request.prompt_token_ids
        self.sampler = Sampler(request.temperature, request.top_p, Random(request.seed))


class Batch:
    """Left-padded rows. Rows that are over leave at once, so a short answer never waits for a long one."""

    def __init__(self, model: "PreTrainedModel", rows: Sequence[Row], pad_id: int) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self.rows = list(rows)
        # Without the model's config every layer keeps all keys: a sliding window is then only a matter of the
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
