"""The reference engine: transformers in fp32 on a thread of its own, answering in small batches.

Whatever waits when the engine is free becomes one batch, read at once and decoded together. A request that
comes meanwhile waits for the next batch: it never joins one that runs.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deploy.scoring.batch import Batch, Row
from deploy.scoring.engine import Generation, TokenScore
from deploy.scoring.likelihood import likelihoods_of
from deploy.scoring.model_limits import cache_tokens, served_context, stop_ids
from deploy.scoring.threaded_engine import MAX_WAITING, ThreadedEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_BATCH = 32


class TransformersEngine(ThreadedEngine):
    """Greedy answers equal `model.generate`'s, alone or in a batch; at most `max_waiting` requests wait."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        import torch

        super().__init__(max_waiting=max_waiting, on_failure=on_failure)
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids(model.generation_config, tokenizer)
        self._max_batch = max_batch
        self._cache_tokens = cache_tokens(model.config)
        self._start()

    @property
    def context(self) -> int:
        return served_context(self._model.config)

    def _serve(self) -> None:
        import torch

        with torch.inference_mode():
            while taken := self._take(self._fits):
                self._answering = taken
                for generation in taken:
                    if generation.request.score_prompt:
                        generation.prompt_scores = self._scores(generation.request.prompt_token_ids)
                self._answer([Row(generation, self._decode, self._stop_ids) for generation in taken])

    def _answer(self, rows: list[Row]) -> None:
        batch = Batch(self._model, rows, self._tokenizer.pad_token_id or 0)
        while batch.rows and not self._end:
            batch.step()
            self._answering = [row.generation for row in batch.rows]

    def _scores(self, prompt: Sequence[int]) -> list[TokenScore]:
        texts = self._tokenizer.batch_decode([[token] for token in prompt[1:]])
        likelihoods = likelihoods_of(self._model, prompt)
        return [
            TokenScore(token, text, *likelihood)
            for token, text, likelihood in zip(prompt[1:], texts, likelihoods, strict=True)
        ]

    def _fits(self, generations: Sequence[Generation]) -> bool:
        """Whether the cache of these stays within its bytes; one alone always may."""
        requests = [generation.request for generation in generations]
        longest = max(len(r.prompt_token_ids) for r in requests) + max(r.max_tokens for r in requests)
        return len(requests) == 1 or len(requests) <= min(self._max_batch, self._cache_tokens // longest)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
