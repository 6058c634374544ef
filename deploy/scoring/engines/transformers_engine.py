"""The reference engine: transformers on a thread of its own, on the model's device and in its precision.

A request joins the running answers at their next step.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engine import MAX_WAITING, Engine, EngineClosed, Memory, TokenScore
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.cuda_graphs import captured, sizes
from deploy.scoring.engines.decoder import Decoder, Row, Step
from deploy.scoring.engines.fixed_cache import FixedCache, bytes_per_token, span_of
from deploy.scoring.engines.memory import cache_tokens, explaining_full_memory
from training.estimate.free_space import free_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ROWS = {"cpu": 32, "cuda": 64}
STEPS_AHEAD = {"cpu": 0, "cuda": 1}  # a GPU computes the next tokens while the last ones are handed out
SCORED_AT_ONCE = 256  # prompt tokens whose logits exist at once: 33 MB with Phi-3's vocabulary


class TransformersEngine(Engine):
    """Greedy answers equal `model.generate`'s, alone or in a batch; at most `max_waiting` requests wait.

    `cache_bytes` bounds the memory for keys and values. `on_failure` is called, from the engine's thread,
    when it dies. Raises BadInput if the memory is too small.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_batch: int | None = None,
        max_waiting: int = MAX_WAITING,
        cache_bytes: int | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(model.config, model.generation_config, tokenizer, max_waiting, on_failure)
        self._model, self._on_gpu = model.eval(), model.device.type == "cuda"
        self._ahead = STEPS_AHEAD[model.device.type]
        self._open: list[Row] = []  # taken and not over
        rows = max_batch or MAX_ROWS[model.device.type]
        free = free_memory(gpu=True) if self._on_gpu else None
        token_bytes = bytes_per_token(model.config, model.dtype.itemsize)
        tokens = cache_tokens(token_bytes, self.context, rows, wanted=cache_bytes, free=free)
        with explaining_full_memory(tokens * token_bytes, span_of(self.context) * token_bytes):
            cache = FixedCache(model.config, tokens, model.dtype, model.device)
            self._decoder = Decoder(model, cache, rows)
            work = self._warm_up(cache) if self._on_gpu else 0
        self._memory = Memory(model.get_memory_footprint(), cache.bytes, work, tokens)
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._open)

    @property
    def memory(self) -> Memory:
        return self._memory

    def _warm_up(self, cache: FixedCache) -> int:
        """Capture every graph, then read and score the longest prompts; the bytes that all this takes.

        torch keeps them, so what follows finds its memory.
        """
        import torch

        with torch.inference_mode():
            wanted = sizes(
                lambda span: min(self._decoder.max_rows, cache.tokens // span), span_of(self.context)
            )
            self._decoder.forward = captured(self._model, self._decoder.compute, wanted)
            self._decoder.warm_up(self.context)
            list(self._scores([0] * self.context))
        reserved = torch.cuda.max_memory_reserved()
        return max(0, reserved - self._model.get_memory_footprint() - cache.bytes)

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
                self._fail_pending(row.answer.generation for row in self._open)

    def _serve(self) -> None:
        import torch

        begun: deque[Step] = deque()
        with torch.inference_mode():
            while not self._end:
                self._join(self._take(wait=not (self._decoder.rows or begun)))
                if self._decoder.rows:
                    begun.append(self._decoder.step())
                while begun and (len(begun) > self._steps_ahead() or not self._decoder.rows):
                    self._hand_out(begun.popleft())

    def _steps_ahead(self) -> int:
        """A guide must have seen the last token before the next one is chosen."""
        return 0 if any(row.answer.guide for row in self._decoder.rows) else self._ahead

    def _take(self, *, wait: bool) -> list[Row]:
        """As many requests, in order, as fit beside the running ones; none when the engine ends."""
        taken: list[Row] = []
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._end or self._first_waiting())
            while not self._end and (generation := self._first_waiting()):
                grammar = generation.request.grammar
                guide = self._guides.guide(grammar) if grammar else None
                decode = self._decoder_for(generation.request)
                row = Row(Answer(generation, decode, self._stop_ids, guide))
                if not self._decoder.fits([*self._decoder.rows, *taken, row]):
                    break
                self._open.append(row)
                taken.append(row)
                self._queue.popleft()
        return taken

    def _join(self, rows: list[Row]) -> None:
        for row in rows:
            if row.answer.request.score_prompt:
                row.answer.generation.prompt_scores = list(self._scores(row.prompt))
        if rows:
            self._decoder.join(rows)

    def _hand_out(self, step: Step) -> None:
        """Give each answer its token. One that is over leaves; what a later step has for it is dropped."""
        for row, token in zip(step.rows, step.wait(), strict=True):
            if row in self._open and not row.answer.accept(token):
                self._open.remove(row)
                self._decoder.leave(row)

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
