"""The reference engine: transformers in fp32 on a thread of its own, answering in small batches.

When the engine is free, the waiting requests become one batch, which is read and decoded together. A request
that arrives meanwhile waits for the next batch.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engine import MAX_WAITING, Engine, EngineClosed, Generation, TokenScore
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_BATCH = 32
SCORED_AT_ONCE = 256  # prompt tokens whose logits exist at once: 33 MB with Phi-3's vocabulary


class TransformersEngine(Engine):
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

        super().__init__(model.config, model.generation_config, tokenizer, max_waiting, on_failure)
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._max_batch = max_batch
        self._answering: Sequence[Generation] = ()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._answering)

    def close(self) -> None:
        """End after the current step and wait for it."""
        self._set_end(EngineClosed("the server is going down"))
        self._thread.join()

    def _work(self) -> None:
        """A crash shows its traceback (the thread's); pending requests fail however this ends."""
        try:
            self._serve()
        finally:
            try:
                self._fail()
            finally:
                self._fail_pending(self._answering)

    def _serve(self) -> None:
        import torch

        with torch.inference_mode():
            while taken := self._take():
                self._answering = taken
                for generation in taken:
                    if generation.request.score_prompt:
                        prompt = generation.request.prompt_token_ids
                        generation.prompt_scores = list(self._scores(prompt))
                self._answer([Answer(generation, self._decode, self._stop_ids) for generation in taken])

    def _take(self) -> list[Generation]:
        """At least one request, and as many in order as fit together; none when the engine ends."""
        taken: list[Generation] = []
        with self._changed:
            while not taken and not self._end:
                self._changed.wait_for(lambda: self._end or self._first_waiting())
                while not self._end and self._next_fits(taken):
                    taken.append(self._queue.popleft())
        return taken

    def _next_fits(self, taken: list[Generation]) -> bool:
        """Whether the key-value cache stays within its limit with one more; a request alone always fits."""
        first = self._first_waiting()
        if first is None or not taken:
            return first is not None
        requests = [generation.request for generation in (*taken, first)]
        longest = max(len(r.prompt_token_ids) for r in requests) + max(r.max_tokens for r in requests)
        return len(requests) <= min(self._max_batch, self._cache_tokens // longest)

    def _answer(self, rows: list[Answer]) -> None:
        batch = Batch(self._model, rows, self.tokenizer.pad_token_id or 0)
        while batch.rows and not self._end:
            batch.step()
            self._answering = [row.generation for row in batch.rows]

    def _scores(self, prompt: Sequence[int]) -> Iterator[TokenScore]:
        """How likely the model finds each token of the prompt but the first, given those before it.

        Natural logarithms; tokens that are equally likely share the better rank.
        """
        import torch
        from transformers import DynamicCache

        texts = iter(self.tokenizer.batch_decode([[token] for token in prompt[1:]]))
        cache, tokens = DynamicCache(), torch.tensor([prompt], device=self._model.device)
        for start in range(0, len(prompt) - 1, SCORED_AT_ONCE):
            end = min(start + SCORED_AT_ONCE, len(prompt) - 1)
            output = self._model(input_ids=tokens[:, start:end], past_key_values=cache, use_cache=True)
            logprobs = output.logits[0].float().log_softmax(dim=-1)
            scored = prompt[start + 1 : end + 1]
            chosen = logprobs.gather(1, tokens[0, start + 1 : end + 1, None])
            ranks = (logprobs > chosen).sum(dim=-1) + 1
            yield from map(TokenScore, scored, texts, chosen.squeeze(1).tolist(), ranks.tolist())
