"""What every engine fulfils: token ids in, text out as it grows, and a slot that can be freed at any time.

EngineError       the request was not answered
├── ContextOverflow   the prompt leaves no room for an answer
├── NotSupported      this engine cannot do what the request asks
├── Overloaded        slots and queue are full
├── Cancelled         the reader gave up
├── EngineClosed      the server is going down
└── EngineFailed      the engine is dead
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Self

FinishReason = Literal["stop", "length"]
MAX_WAITING = 128  # requests in an engine's queue; with that many waiting it is full


class EngineError(Exception):
    """Base of what an engine raises at `submit` or while its answer is read."""


class ContextOverflow(EngineError):
    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens, the model's context is {context}")


class NotSupported(EngineError):
    """`field` is the request's, as the dialects call it."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field

    @classmethod
    def prompt_scores(cls) -> Self:
        message = "prompt_logprobs: the openvino engine does not compute them; transformers does"
        return cls(message, "prompt_logprobs")


class Overloaded(EngineError): ...


class Cancelled(EngineError): ...


class EngineClosed(EngineError): ...


class EngineFailed(EngineError): ...


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to make. `temperature` 0 is greedy; the answer ends before the first stop string.

    `score_prompt` asks for the prompt's own log-likelihood, too.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    score_prompt: bool = False

    def fitted(self, context: int) -> "GenerationRequest":
        """The same with `max_tokens` cut to what the context leaves. Raises ContextOverflow."""
        room = context - len(self.prompt_token_ids)
        if room < 1:
            raise ContextOverflow(len(self.prompt_token_ids), context)
        return replace(self, max_tokens=min(self.max_tokens, room))


class TokenScore(NamedTuple):
    """How likely a token was after those before it; `rank` 1 is the likeliest."""

    token: int
    text: str
    logprob: float
    rank: int


class Generation:
    """One answer in the making: an engine writes it from whatever thread, one asyncio task reads it.

    The reader's task must create it. Only a reader of `pieces` is woken for every token.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.finish_reason: FinishReason | None = None
        self.completion_tokens = 0  # sampled, the end-of-turn token included
        self.over = False
        self.first_token_seconds: float | None = None
        self.prompt_scores: Sequence[TokenScore] = ()  # of every token of the prompt but the first
        self._created = time.monotonic()
        self._error: EngineError | None = None
        self._written: deque[str] = deque()
        self.streamed = False  # read by `pieces`: until then, text is not wanted token by token
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._reader = threading.get_ident()

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it grows. A normal end means a complete answer. Raises EngineError."""
        self.streamed = True
        while True:
            self._news.clear()
            over = self.over  # read before the text: whatever was written before it is in `_written`
            if text := self._take():
                yield text
            if over:
                break
            await self._news.wait()
        if self._error:
            raise self._error

    async def text(self) -> str:
        """The whole answer. Raises EngineError."""
        while not self.over:
            await self._news.wait()
            self._news.clear()
        if self._error:
            raise self._error
        return self._take()

    def cancel(self) -> None:
        """Free the slot; nothing happens where the answer is complete. For the reader's thread."""
        if not self.over:
            self._error = Cancelled("the answer is no longer wanted")
            self.over = True
            self._news.set()

    def write(self, text: str, tokens: int) -> None:
        """Append `text`; `tokens` is the count so far. For the engine's thread, as are the next two."""
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
            self._news.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _take(self) -> str:
        taken = []
        while self._written:
            taken.append(self._written.popleft())
        return "".join(taken)


class Engine(Protocol):
    """`submit` never blocks: it queues, or raises Overloaded, ContextOverflow or NotSupported."""

    @property
    def context(self) -> int:
        """The most tokens that prompt and answer have together."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    def running(self) -> int:
        """Answers in the batch."""

    @property
    def full(self) -> bool:
        """Whether slots and queue are full, so that `submit` would raise Overloaded."""

    def submit(self, request: GenerationRequest) -> Generation: ...

    def close(self) -> None:
        """End at once; answers still in the making raise EngineClosed."""
