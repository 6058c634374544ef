"""Token ids in, text out as it grows: what an engine takes and gives, and the queue in front of every engine.

EngineError       the request was not answered
├── ContextOverflow   the prompt leaves no room for an answer
├── SchemaRefused     no answer can be held to the schema of its JSON or of its calls
├── Overloaded        slots and queue are full
├── Cancelled         the reader cancelled the request
├── EngineClosed      the server is shutting down
└── EngineFailed      the engine has crashed
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from deploy.scoring.guide import Guides
from phi3flow.chats.end_of_turn import stop_token_ids

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

FinishReason = Literal["stop", "length"]
MAX_WAITING = 128  # requests in an engine's queue
CACHE_BYTES = 4 << 30  # of keys and values, for all answers together


class EngineError(Exception):
    """Base of what an engine raises at `submit` or while its answer is read."""


class ContextOverflow(EngineError): ...


class SchemaRefused(EngineError): ...


class Overloaded(EngineError): ...


class Cancelled(EngineError): ...


class EngineClosed(EngineError): ...


class EngineFailed(EngineError): ...


@dataclass(frozen=True)
class GenerationRequest:
    """What to answer. `temperature` 0 is greedy; the answer ends before the first stop string.

    `score_prompt` asks for the log-likelihood of the prompt's tokens as well. An answer follows `grammar`
    (`grammars` makes one), unless it ends at `max_tokens`; its text then has special tokens, too.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    score_prompt: bool = False
    grammar: str | None = None

    def fitted(self, context: int) -> "GenerationRequest":
        """A copy with `max_tokens` cut to what the context leaves. Raises ContextOverflow."""
        tokens = len(self.prompt_token_ids)
        if tokens >= context:
            raise ContextOverflow(f"the prompt has {tokens} tokens, the model's context is {context}")
        return replace(self, max_tokens=min(self.max_tokens, context - tokens))


class TokenScore(NamedTuple):
    """A token's natural log-likelihood, given those before it; `rank` 1 is the most likely token."""

    token: int
    text: str
    logprob: float
    rank: int


class Memory(NamedTuple):
    """Bytes by use; the cache holds the keys and values of `tokens` tokens."""

    weights: int
    cache: int
    work: int
    tokens: int

    def __str__(self) -> str:
        from training.estimate.free_space import size

        total = size(self.weights + self.cache + self.work)
        work = f", {size(self.work)} to work in" if self.work else ""
        return (
            f"{total}: {size(self.weights)} of weights, {size(self.cache)} of keys and values "
            f"(at most {self.tokens:,} tokens){work}"
        )


class Generation:
    """One answer while it is made: an engine writes it from any thread, one asyncio task reads it.

    The reader's task must create it. Only a reader of `pieces` wakes up for every token.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.finish_reason: FinishReason | None = None
        self.completion_tokens = 0  # with the end-of-turn token
        self.over = False
        self.first_token_seconds: float | None = None
        self.prompt_scores: Sequence[TokenScore] = ()  # one for each token of the prompt but the first
        self._created = time.monotonic()
        self._error: EngineError | None = None
        self._written: deque[str] = deque()
        self.streamed = False  # whether `pieces` reads it, so that text is wanted token by token
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._reader = threading.get_ident()

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it grows. A normal end means a complete answer. Raises EngineError."""
        self.streamed = True
        while True:
            self._changed.clear()
            over = self.over  # read before the text: what was written before the end is then in `_written`
            if text := self._take():
                yield text
            if over:
                break
            await self._changed.wait()
        if self._error:
            raise self._error

    async def text(self) -> str:
        """The whole answer. Raises EngineError."""
        while not self.over:
            await self._changed.wait()
            self._changed.clear()
        if self._error:
            raise self._error
        return self._take()

    def cancel(self) -> None:
        """Free the slot; does nothing if the answer is complete. For the reader's thread."""
        self.fail(Cancelled("the answer is no longer wanted"))

    def write(self, text: str, tokens: int) -> None:
        """Append `text`; `tokens` is the count so far. This and the next two are for the engine's thread."""
        self.completion_tokens = tokens
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self._created
        if text:
            self._written.append(text)
            if self.streamed:
                self._wake()

    def finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self.over = True
        self._wake()

    def fail(self, error: EngineError) -> None:
        if not self.over:
            self._error = error
            self.over = True
            self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self._reader:
            self._changed.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _take(self) -> str:
        return "".join(self._written.popleft() for _ in range(len(self._written)))


FAILED = EngineFailed("the engine has failed, see the server's log")


class Engine(ABC):
    """A bounded queue, the limits in a model's files, and how it ends; a subclass answers what is queued.

    `context` is the most tokens of prompt and answer together. `_changed` guards `_queue` and `_end` (the
    reason why the engine has ended). One thread may hold it twice.
    """

    def __init__(
        self,
        config: "PretrainedConfig",
        generation_config: "GenerationConfig | None",
        tokenizer: "PreTrainedTokenizerBase",
        max_waiting: int,
        on_failure: Callable[[], None],
    ) -> None:
        from training.models.loading import served_context

        self.context = served_context(config)
        self._vocabulary: int = config.vocab_size
        self._stop_ids = _stop_ids(generation_config, tokenizer)
        self.tokenizer, self._max_waiting, self._on_failure = tokenizer, max_waiting, on_failure
        self._queue: deque[Generation] = deque()
        self._end: EngineError | None = None
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    @abstractmethod
    def running(self) -> int:
        """Answers in the current batch."""

    @property
    @abstractmethod
    def memory(self) -> Memory:
        """What the engine takes at most."""

    @abstractmethod
    def close(self) -> None:
        """End at once; pending answers raise EngineClosed."""

    @cached_property
    def _guides(self) -> Guides:
        """`require_grammar` makes it, beside the event loop."""
        return Guides(self._tokenizer_text(), self._vocabulary, self._stop_ids)

    def _tokenizer_text(self) -> str:
        return str(self.tokenizer.backend_tokenizer.to_str())

    def require_grammar(self, grammar: str) -> None:
        """Raise SchemaRefused if answers cannot be held to it. For any thread but the event loop's."""
        if problem := self._guides.problem_of(grammar):
            raise SchemaRefused(f"no answer can be held to this schema: {problem}")

    @property
    def full(self) -> bool:
        """Whether `submit` would raise Overloaded."""
        with self._changed:
            if len(self._queue) >= self._max_waiting:
                self._queue = deque(generation for generation in self._queue if not generation.over)
            return len(self._queue) >= self._max_waiting

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request; never blocks. Raises ContextOverflow, Overloaded, EngineClosed or EngineFailed."""
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

    def _fail(self) -> None:
        """For any thread. The owner learns it before the readers, who may ask it at once."""
        if self._set_end(FAILED):
            self._on_failure()

    def _fail_pending(self, running: Iterable[Generation]) -> None:
        for generation in (*self._queue, *running):
            generation.fail(self._end or FAILED)

    def _decoder_for(self, request: GenerationRequest) -> Callable[[Sequence[int]], str]:
        """Token ids to text; a grammar may want special tokens, and then they are part of the answer."""
        return partial(self._decode, skip_special_tokens=request.grammar is None)

    def _decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def _stop_ids(
    generation_config: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase"
) -> frozenset[int]:
    """The model's own end-of-answer tokens, and its template's in case its folder does not name them."""
    eos = generation_config.eos_token_id if generation_config else None
    own = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return frozenset([*own, *stop_token_ids(tokenizer)])
