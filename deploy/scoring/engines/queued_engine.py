"""What both engines share: a bounded queue, the limits in a model's files, and how an engine ends."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deploy.scoring.engine import EngineError, EngineFailed, Generation, GenerationRequest, Overloaded
from training.models.loading import served_context

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

CACHE_BYTES = 4 << 30  # of keys and values, for all answers together
BYTES_PER_VALUE = 4
FAILED = EngineFailed("the engine has failed, see the server's log")


class QueuedEngine:
    """An engine without the part that answers: a subclass takes requests from the queue.

    `_changed` guards `_queue` and `_end` (the reason why the engine has ended). One thread may hold it twice.
    """

    def __init__(
        self,
        config: "PretrainedConfig",
        generation_config: "GenerationConfig | None",
        tokenizer: "PreTrainedTokenizerBase",
        max_waiting: int,
        on_failure: Callable[[], None],
    ) -> None:
        self.context = served_context(config)
        self._cache_tokens = cache_tokens(config)
        self._stop_ids = stop_ids(generation_config, tokenizer)
        self._tokenizer, self._max_waiting, self._on_failure = tokenizer, max_waiting, on_failure
        self._queue: deque[Generation] = deque()
        self._end: EngineError | None = None
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        return len(self._queue)

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

    def _first_waiting(self) -> Generation | None:
        """The next request in the queue; drops those that were cancelled while they waited."""
        while self._queue and self._queue[0].over:
            self._queue.popleft()
        return self._queue[0] if self._queue else None

    def _set_end(self, end: EngineError) -> bool:
        """For any thread. Whether this is the first reason to end, which is the one that counts."""
        with self._changed:
            is_first = self._end is None
            self._end = self._end or end
            self._changed.notify()
        return is_first

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def cache_tokens(config: "PretrainedConfig") -> int:
    """How many tokens' keys and values, of every layer and in fp32, make up CACHE_BYTES."""
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    return CACHE_BYTES // (2 * BYTES_PER_VALUE * int(config.num_hidden_layers * width))


def stop_ids(
    generation_config: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase"
) -> frozenset[int]:
    """The model's own end-of-answer tokens, and Phi-3's end of turn in case its folder does not name it."""
    from training.models.loading import stop_token_ids

    eos = generation_config.eos_token_id if generation_config else None
    own = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return frozenset([*own, *stop_token_ids(tokenizer)])
