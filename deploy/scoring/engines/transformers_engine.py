"""The reference engine: transformers in fp32 on a thread of its own, answering in small batches.

Whatever waits when the engine is free becomes one batch, read at once and decoded together. A request that
comes meanwhile waits for the next batch: it never joins one that runs.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engine import (
    MAX_WAITING,
    EngineClosed,
    EngineError,
    EngineFailed,
    Generation,
    GenerationRequest,
    Overloaded,
    TokenScore,
)
from deploy.scoring.engines.batch import Batch, Row
from deploy.scoring.engines.likelihood import likelihoods_of
from deploy.scoring.engines.model_limits import cache_tokens, stop_ids
from training.models.loading import served_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_BATCH = 32


class TransformersEngine:
    """Greedy answers equal `model.generate`'s, alone or in a batch; at most `max_waiting` requests wait.

    `on_failure` is called, from the engine's thread, when it dies.
    """

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

        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids(model.generation_config, tokenizer)
        self._cache_tokens = cache_tokens(model.config)
        self._max_batch, self._max_waiting, self._on_failure = max_batch, max_waiting, on_failure
        self._answering: Sequence[Generation] = ()
        self._end: EngineError | None = None
        self._queue: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)
        self._thread.start()

    @property
    def context(self) -> int:
        return served_context(self._model.config)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._answering)

    @property
    def full(self) -> bool:
        with self._changed:
            if len(self._queue) >= self._max_waiting:
                self._queue = deque(generation for generation in self._queue if not generation.over)
            return len(self._queue) >= self._max_waiting

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request. Raises ContextOverflow, Overloaded, EngineClosed or EngineFailed."""
        generation = Generation(request.fitted(self.context))
        with self._changed:
            if self._end:
                raise self._end
            if self.full:
                raise Overloaded(f"{len(self._queue)} requests are waiting already")
            self._queue.append(generation)
            self._changed.notify()
        return generation

    def close(self) -> None:
        """End after the current step and wait for it."""
        with self._changed:
            self._end = self._end or EngineClosed("the server is going down")
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """A crash keeps its traceback (the thread's); whoever waits is told either way."""
        try:
            self._serve()
        finally:
            with self._changed:
                closed = self._end is not None
                self._end = self._end or EngineFailed("the engine has failed, see the server's log")
                for generation in (*self._queue, *self._answering):
                    generation.fail(self._end)
            if not closed:
                self._on_failure()

    def _serve(self) -> None:
        import torch

        with torch.inference_mode():
            while taken := self._take():
                self._answering = taken
                for generation in taken:
                    if generation.request.score_prompt:
                        generation.prompt_scores = self._scores(generation.request.prompt_token_ids)
                self._answer([Row(generation, self._decode, self._stop_ids) for generation in taken])

    def _take(self) -> list[Generation]:
        """At least one, as many in order as fit together; none when the engine ends."""
        taken: list[Generation] = []
        with self._changed:
            while not taken and not self._end:
                self._changed.wait_for(lambda: self._end or self._next_fits([]))
                while not self._end and self._next_fits(taken):
                    taken.append(self._queue.popleft())
        return taken

    def _next_fits(self, taken: list[Generation]) -> bool:
        """Whether the cache of these and the next stays within its bytes; one alone always may."""
        while self._queue and self._queue[0].over:  # cancelled
            self._queue.popleft()
        if not self._queue or not taken:
            return bool(self._queue)
        requests = [generation.request for generation in (*taken, self._queue[0])]
        longest = max(len(r.prompt_token_ids) for r in requests) + max(r.max_tokens for r in requests)
        return len(requests) <= min(self._max_batch, self._cache_tokens // longest)

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

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
